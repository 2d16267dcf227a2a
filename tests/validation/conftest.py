"""The folder validation/ is run from the repository, not installed: its tests put the repository on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
