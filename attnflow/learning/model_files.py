"""Trained classifiers in safetensors files: what is written, and what of a file is believed."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from . import propagation
from .tensor_files import read_tensors, write_tensors

_NOTE = "attnflow.learning"  # of the metadata: what the rest of it is about
_CLASSES = "biufU"  # kinds of labels that JSON holds


def write(path: str | os.PathLike, model: Any) -> None:
    """Write a trained classifier: parameters, states and history as tensors, the rest as JSON in the metadata."""
    classes = model.classes_
    if classes.dtype.kind not in _CLASSES and not all(isinstance(name, str) for name in classes):
        raise ValueError(f"y must have held numbers or text to be saved, got classes of {type(classes[0]).__name__}")
    width, blocks = len(model.parameters_["input.bias"]), propagation.blocks_of(model.parameters_)
    options = model.get_params() | {"width": width, "blocks": blocks}  # those of the fit, whatever was set since
    if isinstance(options["random_state"], np.random.RandomState):
        options["random_state"] = None  # a stream that has moved on
    note = {
        "estimator": type(model).__name__,
        "options": options,
        "classes": classes.tolist(),
        "dtype": classes.dtype.str,
        "graph": model.graph_,
        "interrupted": model.interrupted_,
        "columns": getattr(model, "feature_names_in_", np.array([])).tolist(),
    }
    tensors = dict(model.parameters_)
    tensors |= {f"states.{k}": states for k, states in enumerate(model.states_)}
    tensors |= {f"history.{name}": values for name, values in model.history_.items()}
    write_tensors(path, tensors, {_NOTE: json.dumps(note, default=lambda number: number.item())})


def read(path: str | os.PathLike, kinds: dict[str, type]) -> Any:
    """The classifier that `write` left; `kinds` are the estimators by name.

    Raises
    ------
    ValueError
        In one line that begins with `path`: no such file, or one whose parts do not fit each other.
    """
    file = read_tensors(path)

    def unless(fits: bool, why: str) -> None:
        if not fits:
            raise ValueError(f"path must be a classifier saved by attnflow.learning, got {os.fspath(path)!r} ({why})")

    unless(_NOTE in file.metadata, "its metadata do not say so")
    try:
        note = json.loads(file.metadata[_NOTE])
        model = kinds[note["estimator"]](**note["options"])
        model._check_parameters()
        kind = np.dtype(str(note["dtype"]))
        if kind.kind not in _CLASSES + "O" or kind.kind in "UO" and not all(isinstance(name, str) for name in note["classes"]):
            raise TypeError(f"classes {str(note['classes'])[:40]} of type {kind}")
        classes = np.array(note["classes"], {"U": str, "O": object}.get(kind.kind, kind))
        names, graph = [str(name) for name in note["columns"]], bool(note["graph"])
        model.interrupted_ = bool(note["interrupted"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        unless(False, f"{type(error).__name__} in its metadata: {str(error)[:80]}")
    unless(classes.ndim == 1 and len(set(classes.tolist())) == len(classes) > 1, "less than two classes")
    unless(model.blocks <= len(file), f"no tensors of {model.blocks} blocks")
    inputs = file["input.weight"].shape[-1] if "input.weight" in file and file["input.weight"].ndim == 2 else 0
    sizes = propagation.shapes(model._attention, inputs, len(classes), model.width, model.blocks)
    states, history = [f"states.{k}" for k in range(model.blocks)], ["history.loss", "history.accuracy"]
    unless(inputs > 0 and set(file) == {*sizes, *states, *history}, "tensors other than those of its network")
    arrays = {name: file[name] for name in file}
    for name, array in arrays.items():
        unless(array.dtype == np.float64 and bool(np.isfinite(array).all()), f"{name} is not finite float64")
        other = (*arrays[states[0]].shape[:1], model.width) if name in states else (arrays[history[0]].size,)
        unless(array.shape == sizes.get(name, other), f"{name} has shape {array.shape}")
    unless(arrays[states[0]].size > 0, "no training tokens")
    unless(names == [] or len(names) == inputs, f"{len(names)} names of {inputs} columns")
    model.parameters_, model.states_ = {name: arrays[name] for name in sizes}, [arrays[name] for name in states]
    model.history_ = {name.partition(".")[2]: arrays[name] for name in history}
    model.classes_, model.graph_, model.n_features_in_, model.n_iter_ = classes, graph, inputs, len(arrays[history[0]])
    if names:
        model.feature_names_in_ = np.array(names, dtype=object)
    return model
