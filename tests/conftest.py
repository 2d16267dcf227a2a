"""Where CI is set, random cases are the same ones every time; processes that share the cores do not fight for them."""

import os
import signal
import sys
from pathlib import Path

import pytest
import scipy.linalg  # noqa: F401  (brings its own linear algebra along, beside NumPy's)
from hypothesis import settings
from threadpoolctl import threadpool_limits

settings.register_profile("fixed", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("fixed")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # begun in the background of a shell; tests of Ctrl-C hear it
    signal.signal(signal.SIGINT, signal.default_int_handler)
SHARING = "PYTEST_XDIST_WORKER" in os.environ
if SHARING:
    threadpool_limits(1, "blas")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """PyTorch takes as many threads as numba's pool has, once that is there: each time anew it is told to take one."""
    if SHARING and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown():
    """Figures that a test or an example leaves open are no later test's."""
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Tests that are listed as lengthy are marked so, before marks choose."""
    names = set((Path(__file__).parent / "lengthy.txt").read_text(encoding="utf-8").splitlines())
    for item in items:
        if item.nodeid.partition("[")[0] in names:
            item.add_marker("lengthy")


@pytest.fixture(params=["run", pytest.param("run.zarr", marks=pytest.mark.optional)])
def store_name(request):
    """Of a store of either kind."""
    if request.param.endswith(".zarr"):
        pytest.importorskip("zarr")
    return request.param
