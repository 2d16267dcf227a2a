"""Where particles and equations meet: the limit of a layer, its predicted bias and its predicted noise."""

from .bias import predicted_bias
from .limits import limit
from .noise import predicted_noise

__all__ = ["limit", "predicted_bias", "predicted_noise"]
