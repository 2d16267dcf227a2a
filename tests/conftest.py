"""Where CI is set, random cases are the same ones every time; processes that share the cores do not fight for them."""

import os

import scipy.linalg  # noqa: F401  (brings its own linear algebra along, beside NumPy's)
from hypothesis import settings
from threadpoolctl import threadpool_limits

settings.register_profile("fixed", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("fixed")
if "PYTEST_XDIST_WORKER" in os.environ:
    threadpool_limits(1, "blas")
    os.environ["OMP_NUM_THREADS"] = "1"  # PyTorch's, which reads it when it is imported
