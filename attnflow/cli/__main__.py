"""python -m attnflow.cli"""

import sys

from . import main

sys.exit(main())
