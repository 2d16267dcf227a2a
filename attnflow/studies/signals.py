"""Ctrl-C and SIGTERM as exceptions, raised at once or when it is safe."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_AGAIN = 0.005  # seconds until a signal that came at a bad moment is raised again


class Terminated(SystemExit):
    """SIGTERM as an exception: what is open is closed on the way out, and the exit status is 143."""

    code: int

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)

    def __str__(self) -> str:
        return "terminated"


class Signals:
    """Within it SIGINT raises KeyboardInterrupt and SIGTERM `Terminated`, where nobody else handles them.

    Attributes
    ----------
    arrived : int or None
        The last signal. An exception raised in a callback of compiled code is lost; this is not.
    deferred : bool
        Keep a signal until `check` is called: while processes start, an exception may lose one of them.
    """

    def __init__(self) -> None:
        self.arrived: int | None = None
        self.deferred = False
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}
        self._again: threading.Timer | None = None

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # others get no signals
            for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
                handler = signal.getsignal(number)
                if handler is usual or isinstance(getattr(handler, "__self__", None), Signals):
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, _, error: BaseException | None, __) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        # a call that was interrupted may say so in an exception of its own; or end before the signal is raised again
        if isinstance(error, Exception) or (error is None and self._again is not None):
            self.check()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.arrived = number
        if self.deferred:
            return
        if _loading(frame):
            self._again = threading.Timer(_AGAIN, _raise_again, (number,))
            self._again.daemon = True
            self._again.start()
        else:
            self.check()

    def check(self) -> None:
        """Raise what has arrived."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self.arrived == signal.SIGTERM:
            raise Terminated
        if self.arrived == signal.SIGINT:
            raise KeyboardInterrupt


def _raise_again(number: int) -> None:
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):  # wakes the main thread where it waits
        signal.pthread_kill(main, number)
    else:
        signal.raise_signal(number)


def _loading(frame: FrameType | None) -> bool:
    """Inside llvmlite, as while a compiled loop is read from disk: an exception there frees memory twice, a crash."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("llvmlite"):
            return True
        frame = frame.f_back
    return False
