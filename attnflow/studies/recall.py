"""Numbers of predictions, which are computed once: then they come out of a study's store."""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Callable

from .. import capacity, checks
from ..provenance import versions
from .design import Design
from .store import Entry, Store, content_key

PREDICTION_FORM = 1  # raise it when the same study comes to be predicted by other numbers or in other words, as `design.FORM`


class Recall:
    """What a store knows of a study's predictions, and what it comes to know; a context manager.

    Parameters
    ----------
    study : Design
        Of one normalisation.
    path : path or None
        Of the store, whose cells are there already; None for none.
    """

    def __init__(self, study: Design, path: str | os.PathLike | None) -> None:
        self._study = study
        self._kept = Store(path if path is not None and os.path.exists(path) else None)
        self._prepared, self._keeps = False, True

    def __enter__(self) -> Recall:
        return self

    def __exit__(self, *_) -> None:
        self._kept.close()

    def __call__(self, name: str, predict: Callable, numbers: Callable[..., dict], epsilon: float, size: int | None) -> dict:
        """The numbers of what predict(layer, density, initial, t[, size]) returns, or {"unknown": why} where it refuses."""
        key = content_key([self._study.fingerprint, PREDICTION_FORM, name, epsilon, size])
        row = self._kept.find({key: _check}).get(key)
        if row is None:
            began = time.perf_counter()
            row, lasts = self._computed(predict, numbers, epsilon, size)
            if lasts and self._keeps:
                self._keep(key, name, epsilon, size, time.perf_counter() - began, row)
        for message, category in row["warned"]:
            checks.warn(message, getattr(checks, category))
        return row["numbers"]

    def _computed(self, predict: Callable, numbers: Callable[..., dict], epsilon: float, size: int | None) -> tuple[dict, bool]:
        """The row, and whether it is the same elsewhere and tomorrow: what the memory refuses today is not."""
        study, extra, lasts = self._study, () if size is None else (size,), True
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", checks.AttnflowWarning)
            try:
                found = predict(study.layer(epsilon), study.density, study.initial, study.t, *extra)
            except (ValueError, NotImplementedError) as error:
                told, lasts = {"unknown": str(error)}, not isinstance(error, capacity.BeyondMemory)
            else:
                told = numbers(found)
        said = [[str(w.message), w.category.__name__] for w in warned if issubclass(w.category, checks.AttnflowWarning)]
        return {"numbers": told, "warned": said}, lasts

    def _keep(self, key: str, name: str, epsilon: float, size: int | None, seconds: float, row: dict) -> None:
        entry = Entry(
            key=key,
            kind="prediction",
            study=self._study.fingerprint,
            parameters={"predicted": name, "epsilon": epsilon, "size": size, "t": self._study.t},
            seed=None,
            versions=versions(),
            engine=None,
            seconds=seconds,
            status="finished",
            host=platform.node(),
            message="",
            result=row,
        )
        try:
            if not self._prepared:
                self._kept.prepare()
                self._prepared = True
            self._kept.add(entry)
        except ValueError:  # a disk that can only be read: the numbers are no less true
            self._keeps = False
        except OSError as error:  # nor are they where it is full, but somebody may want to make room
            self._keeps = False
            checks.warn(f"predictions are computed anew by the next run, for {error}", checks.PartialWarning)


def _check(row: dict) -> None:
    """ValueError unless a row is a prediction's."""
    numbers, warned = (row.get("numbers"), row.get("warned")) if isinstance(row, dict) else (None, None)
    if not (isinstance(numbers, dict) and all(type(v) is float or isinstance(v, str) for v in numbers.values())):
        raise ValueError(f"a prediction must have its numbers, got {str(row)[:60]}")
    for pair in warned if isinstance(warned, list) else [None]:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(getattr(checks, str(pair[1]), None), type)):
            raise ValueError(f"a prediction must have its warnings, got {str(row)[:60]}")
