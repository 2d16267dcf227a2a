"""Where CI is set, random cases are the same ones every time."""

import os

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("fixed")
