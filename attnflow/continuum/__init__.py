"""Where particles and equations meet: a layer's limit, its predicted bias and noise, the density of moving tokens."""

from .bias import predicted_bias
from .error import PredictedError, predicted_error
from .limits import limit
from .mean_field import MeanField
from .noise import predicted_noise
from .noisy_tokens import NoisyStates, NoisyTokens
from .rates import predicted_rates
from .sparse_limits import predicted_fraction

__all__ = [
    "MeanField",
    "NoisyStates",
    "NoisyTokens",
    "PredictedError",
    "limit",
    "predicted_bias",
    "predicted_error",
    "predicted_fraction",
    "predicted_noise",
    "predicted_rates",
]
