"""Training of a network by Adam on the cross-entropy of all tokens at once, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .. import checks, display
from ..progress import track
from . import propagation


@dataclass
class History:
    """Loss and accuracy on the training tokens, epoch by epoch, each before the epoch's step; whether it was cut short."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    interrupted: bool = False

    __repr__ = display.of_fields

    def arrays(self) -> dict[str, np.ndarray]:
        return {"loss": np.array(self.loss), "accuracy": np.array(self.accuracy)}


def by_adam(
    parameters: Mapping[str, np.ndarray],
    attention: str,
    lipschitz: float | None,
    x: np.ndarray,
    labels: np.ndarray,
    edges: np.ndarray | None,
    *,
    learning_rate: float,
    weight_decay: float,
    epochs: int,
    tol: float,
    n_iter_no_change: int,
    progress: bool,
) -> tuple[dict[str, np.ndarray], History]:
    """Train from the given parameters: (the new ones, as float64, and the history).

    In float32: twice as fast as float64, and weights differ from those of the exported parameters by their rounding.
    Stops early once the loss has not fallen by `tol` below its lowest for `n_iter_no_change` epochs.

    Raises
    ------
    ValueError
        If the loss leaves the range of numbers.

    Warns
    -----
    AccuracyWarning
        If float32 does not tell the tokens apart.
    ConvergenceWarning
        If training was interrupted: what was learned until then is kept.
    """
    from . import networks
    from .networks import torch

    classes, width = parameters["output.weight"].shape
    blocks = propagation.blocks_of(parameters)
    tokens, targets = torch.tensor(x, dtype=torch.float32), torch.tensor(labels)
    if 0 < 1e-3 * x.std(axis=0).max() < np.abs(tokens.numpy() - x).max() < np.inf:
        checks.warn(
            f"X has entries up to {np.abs(x).max():.3g} but a spread of {x.std(axis=0).max():.3g}, which float32 blurs: "
            "subtract the mean, or use L2Attention with solver 'lbfgs'",
            checks.AccuracyWarning,
        )
    network = networks.PropagationNetwork(x.shape[1], classes, width, blocks, attention, lipschitz)
    network.load_state_dict({name: torch.tensor(value, dtype=torch.float32) for name, value in parameters.items()})
    pairs = None if edges is None else torch.tensor(edges)
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
    history, lowest, stalled = History(), np.inf, 0
    try:
        for _ in track(range(epochs), progress, unit="epoch"):
            optimiser.zero_grad()
            scores = network(tokens, pairs)
            loss = torch.nn.functional.cross_entropy(scores, targets)
            value = loss.item()
            if not np.isfinite(value):
                raise ValueError(
                    f"learning_rate must keep the loss finite, got {learning_rate!r} and a loss of {value} in epoch "
                    f"{len(history.loss)}, of inputs X up to {np.abs(x).max():.3g}; scale X, or use a smaller one"
                )
            history.loss.append(value)
            history.accuracy.append((scores.detach().argmax(dim=1) == targets).float().mean().item())
            stalled = 0 if value < lowest - tol else stalled + 1
            lowest = min(lowest, value)
            if stalled >= n_iter_no_change:
                break
            loss.backward()
            optimiser.step()
    except KeyboardInterrupt:
        history.interrupted = True
        checks.warn(
            f"training was interrupted after {len(history.loss)} of {epochs} epochs: what was learned is kept",
            checks.ConvergenceWarning,
        )
    return export(network), history


def export(network) -> dict[str, np.ndarray]:
    """The parameters as float64 arrays, W_2 within its bound."""
    result = {name: value.numpy().astype(np.float64) for name, value in network.state_dict().items()}
    for k, block in enumerate(network.blocks):
        if getattr(block, "lipschitz", None) is not None:
            result[f"blocks.{k}.outer.weight"] = block.outer_weight().detach().numpy().astype(np.float64)
    return result
