"""The information propagation network (Ruan & Zhang 2024, algorithm 1) as PyTorch modules.

No N x N array is made, forward or backward: |phi(x) - phi(y)|^2 is, up to what depends on x alone, an inner product of
[phi(x), 1] and [phi(y), -|phi(y)|^2 / 2], so that each attention is PyTorch's own fused one.
"""

from __future__ import annotations

try:
    import torch
except ImportError as missing:
    raise ImportError('training attention by Adam needs PyTorch: pip install "attnflow[learning]"') from missing
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

_COLUMNS = 16  # the fused attention wants as many of values as of keys, and takes half the time for multiples of this


class Block(nn.Module):
    """h + softmax(logits) V h; subclasses say what the logits are inner products of.

    Parameters
    ----------
    width : int
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value = nn.Linear(width, width, bias=False)

    def queries_and_keys(self, h: Tensor) -> tuple[Tensor, Tensor, float]:
        """Rows (N, m) and (N, m), and the factor that makes their inner products the logits."""
        raise NotImplementedError

    def forward(self, h: Tensor, edges: Tensor | None = None) -> Tensor:
        """New states (N, width) of states (N, width); along edges (E, 2), query first, or between all."""
        queries, keys, scale = self.queries_and_keys(h)
        values = self.value(h)
        if edges is not None:
            return h + _along(edges, queries, keys, values, scale)
        columns = -(-max(queries.shape[1], values.shape[1]) // _COLUMNS) * _COLUMNS
        q, k, v = (pad(part, (0, columns - part.shape[1]))[None, None] for part in (queries, keys, values))
        return h + scaled_dot_product_attention(q, k, v, scale=scale)[0, 0, :, : values.shape[1]]


class SelfBlock(Block):
    """Logits (Q x).(K y) / sqrt(width)."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)

    def queries_and_keys(self, h: Tensor) -> tuple[Tensor, Tensor, float]:
        return self.query(h), self.key(h), h.shape[1] ** -0.5


class _DistanceBlock(Block):
    """Logits -|phi(x) - phi(y)|^2 / sqrt(width)."""

    def phi(self, h: Tensor) -> Tensor:
        raise NotImplementedError

    def queries_and_keys(self, h: Tensor) -> tuple[Tensor, Tensor, float]:
        image = self.phi(h)
        image = image - image.detach().mean(dim=0)  # distances don't change, and their squares keep their digits
        square = (image**2).sum(dim=1, keepdim=True)
        return pad(image, (0, 1), value=1.0), torch.cat([image, -square / 2], dim=1), 2 * h.shape[1] ** -0.5


class L2Block(_DistanceBlock):
    """phi(x) = Q x."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.query = nn.Linear(width, width, bias=False)

    def phi(self, h: Tensor) -> Tensor:
        return self.query(h)


class MetricBlock(_DistanceBlock):
    """phi(x) = x + W_2 tanh(W_1 x + b_1) + b_2.

    Parameters
    ----------
    width : int
    lipschitz : float, optional
        Most that the product of the spectral norms of W_1 and W_2, which bounds the Lipschitz constant of what is added to
        x, may be: W_2 is divided by what it exceeds that by. Below one phi is injective.
    """

    def __init__(self, width: int, lipschitz: float | None = None) -> None:
        super().__init__(width)
        self.hidden = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        self.lipschitz = lipschitz

    def outer_weight(self) -> Tensor:
        """W_2, within the bound."""
        if self.lipschitz is None:
            return self.outer.weight
        norms = [torch.linalg.matrix_norm(linear.weight, 2) for linear in (self.hidden, self.outer)]
        return self.outer.weight / torch.clamp(norms[0] * norms[1] / self.lipschitz, min=1.0)

    def phi(self, h: Tensor) -> Tensor:
        return h + nn.functional.linear(torch.tanh(self.hidden(h)), self.outer_weight(), self.outer.bias)


BLOCKS: dict[str, type[Block]] = {"self": SelfBlock, "l2": L2Block, "metric": MetricBlock}


class PropagationNetwork(nn.Module):
    """Linear, attention blocks, linear: the scores of tokens that attend to each other.

    Parameters
    ----------
    inputs, classes : int
        Columns of the tokens and of the scores.
    width, blocks : int
    attention : {"metric", "l2", "self"}
    lipschitz : float, optional
        Of `MetricBlock`.

    Examples
    --------
    >>> network = PropagationNetwork(2, 3, 10, 1, "metric")
    >>> network(torch.zeros(5, 2)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self, inputs: int, classes: int, width: int, blocks: int, attention: str, lipschitz: float | None = None
    ) -> None:
        super().__init__()
        options = {} if lipschitz is None else {"lipschitz": lipschitz}
        self.input = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(BLOCKS[attention](width, **options) for _ in range(blocks))
        self.output = nn.Linear(width, classes)

    def forward(self, x: Tensor, edges: Tensor | None = None) -> Tensor:
        """Scores (N, classes) of tokens (N, inputs); along edges (E, 2), query first, or between all."""
        h = self.input(x)
        for block in self.blocks:
            h = block(h, edges)
        return self.output(h)


def _along(edges: Tensor, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """Weighted means (N, c) along edges, in memory proportional to their number."""
    of_query, of_key = edges[:, 0], edges[:, 1]
    logits = scale * (queries[of_query] * keys[of_key]).sum(dim=1)
    largest = logits.new_full((len(queries),), -torch.inf).scatter_reduce(0, of_query, logits.detach(), "amax")
    weights = torch.exp(logits - largest[of_query])
    total = weights.new_zeros(len(queries)).index_add(0, of_query, weights)
    mean = values.new_zeros(len(queries), values.shape[1]).index_add(0, of_query, weights[:, None] * values[of_key])
    return mean / total[:, None]
