"""Metrics learned from data: attention classifiers and diffusion maps for scikit-learn, and pretrained transformers' heads.

Nothing here imports scikit-learn or PyTorch (the extra `learning`) before it is asked for; heads are read in NumPy alone.
"""

from importlib import import_module

_LATER = {
    "DiffusionMap": "diffusion_map",
    "L2Attention": "classifiers",
    "MetricAttention": "classifiers",
    "SelfAttention": "classifiers",
    "anatomy": "head_anatomy",
    "from_safetensors": "pretrained",
    "hidden_states": "bert",
    "load": "classifiers",
    "symmetry": "pretrained",
}


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATER[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(_LATER)
