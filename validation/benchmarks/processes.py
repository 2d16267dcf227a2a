"""A worker seen from outside: started alone on one core and one thread, asked for one timing at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class Worker:
    """`python -m validation.benchmarks.MODULE CASE METHOD`, from its start to its end.

    Attributes
    ----------
    ready : dict
        Its first event: what it was tuned to, or why it takes no part.
    """

    def __init__(self, case: str, method: str, module: str = "worker") -> None:
        command = [sys.executable, "-m", f"validation.benchmarks.{module}", case, method]
        environment = os.environ | dict.fromkeys(_THREADS, "1")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, env=environment, cwd=_ROOT, **pipes)
        self.ready = self._event()

    @property
    def solves(self) -> bool:
        """Whether it can be asked for timings."""
        return self.ready["event"] == "ready"

    def run(self) -> dict:
        """One timing: {"seconds", "error"}.

        Raises
        ------
        RuntimeError
            If the process ended instead.
        """
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        event = self._event()
        if event["event"] != "run":
            raise RuntimeError(event["why"])
        return event

    def close(self) -> None:
        """End the process and wait for it."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _event(self) -> dict:
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        return {"event": "unsolved", "why": f"its process ended with code {self._process.wait()}"}
