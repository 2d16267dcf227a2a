import numba
import pytest


@pytest.fixture
def two_threads():
    """For tests that set the number of threads to 2; skipped where numba has one."""
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core")
    before = numba.get_num_threads()
    yield
    numba.set_num_threads(before)
