"""What an attention head does on given tokens: how much of it is a metric, how local that is, and what the rest does."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import entr

from .. import checks
from ..attention import Attention
from ..geometry import Euclidean
from ..similarity import DotProduct, SquaredDistance

_ROUNDING = 1e-12  # eigenvalues below this part of the largest are none


@dataclass(frozen=True, repr=False)
class Anatomy:
    """What `anatomy` found.

    Attributes
    ----------
    shares : dict
        Of what a token's logits differ by, adding up to one: "key", which depends on the key alone; "metric" and
        "repelling", by which tokens attend to their like and to their opposites; "antisymmetric".
    perplexity : float
        Tokens that the median token attends to.
    most_attended : (N,) array of int
        The key of each token's largest weight.
    symmetric, antisymmetric : float
        Frobenius norms of the two parts of W, where logits are x'Wy + b'y.
    definiteness : float
        Sum of the eigenvalues of W's symmetric part over the sum of their magnitudes: 1 for a metric, -1 for a repelling one.
    effective_rank : float
        exp(entropy) of the singular values of W, scaled to sum one (Roy & Vetterli 2007).
    spread : float
        Standard deviation of the logits of a token over the keys, root mean square over tokens.
    eigenvalues : (k,) array
        Those of Sigma^(1/2) W_s Sigma^(1/2) that are not zero, largest first; Sigma is the covariance of the tokens, W_s the
        symmetric part of W. Above one, weights are narrower than the cloud of tokens: local in that direction.
    gaussian_error : float
        One layer's output on the tokens against mu + Sigma (W'x + b), what it would be for infinitely many Gaussian tokens;
        relative to its root mean square about mu.
    diffusion_error : float or None
        Where the metric share is the largest: one layer's output against that of the nearest squared distance, a step of
        drift-diffusion where it is local; relative to how far the layer moves.
    """

    shares: dict[str, float]
    perplexity: float
    most_attended: np.ndarray
    symmetric: float
    antisymmetric: float
    definiteness: float
    effective_rank: float
    spread: float
    eigenvalues: np.ndarray = field(repr=False)
    gaussian_error: float
    diffusion_error: float | None

    @property
    def kind(self) -> str:
        """The largest share."""
        return max(self.shares, key=self.shares.__getitem__)

    @property
    def self_attending(self) -> float:
        """Share of tokens that attend most to themselves."""
        return float((self.most_attended == np.arange(len(self.most_attended))).mean())

    @property
    def local_directions(self) -> int:
        """How many eigenvalues are above one."""
        return int((self.eigenvalues > 1).sum())

    @property
    def distance(self) -> float:
        """From the logits, but for what depends on one token alone, to the nearest -|Lx - Ly|^2 / 2: 0 for one, at most 1."""
        pairwise = sum(share for name, share in self.shares.items() if name != "key")
        return float(np.sqrt(max(0.0, 1 - self.shares["metric"] / pairwise))) if pairwise else 1.0

    @property
    def verdict(self) -> str:
        """One sentence: whether the head is near a diffusive limit on these tokens, and if not, what it does instead."""
        count, largest = len(self.most_attended), float(self.eigenvalues.max(initial=0.0))
        share = f"{100 * self.shares[self.kind]:.0f} %"
        local = f"{self.local_directions} of {len(self.eigenvalues)} directions (largest eigenvalue {largest:.2g})"
        step = f"one layer is {100 * (self.diffusion_error or 0.0):.0f} % of its step off drift-diffusion"
        if self.kind == "metric" and self.local_directions and (self.diffusion_error or 0.0) < 0.5:  # more of one than not
            return f"Nearest to a diffusive limit in {local}: its largest part, {share}, is a metric; {step}."
        why = {
            "key": "depends on the key alone: all tokens are drawn to the same ones",
            "antisymmetric": "is antisymmetric: it transports features from some tokens to others",
            "repelling": "repels: tokens attend to what they are least like",
            "metric": f"is a metric, but {step}: it lacks a metric's key bias, or tokens see few others"
            if self.local_directions
            else f"is a metric, but no direction is local (largest eigenvalue {largest:.2g}, above 1 needed): "
            f"tokens average over the whole cloud, {self.perplexity:.0f} of {count}",
        }[self.kind]
        though = f", though local in {local}" if self.local_directions else ""
        return f"In no diffusive limit{though}, because its largest part, {share}, {why}."

    @property
    def numbers(self) -> dict[str, float | None]:
        """What a table of heads has of this one, by the heads of its columns."""
        return self.shares | {
            "perplexity": self.perplexity,
            "self-attending": self.self_attending,
            "spread": self.spread,
            "symmetric norm": self.symmetric,
            "antisymmetric norm": self.antisymmetric,
            "effective rank": self.effective_rank,
            "definiteness": self.definiteness,
            "largest eigenvalue": float(self.eigenvalues.max(initial=0.0)),
            "local directions": self.local_directions,
            "distance": self.distance,
            "gaussian error": self.gaussian_error,
            "diffusion error": self.diffusion_error,
        }

    def __repr__(self) -> str:
        return f"Anatomy({', '.join(f'{name} {share:.2f}' for name, share in self.shares.items())}: {self.verdict})"

    def plot(self, ax=None):
        """The eigenvalues, and the shares above them; returns the Axes."""
        from ..plotting.heads import plot_eigenvalues

        return plot_eigenvalues(self.eigenvalues, self.shares, ax)


def anatomy(head: DotProduct, tokens: np.ndarray) -> Anatomy:
    """Take a head apart on the tokens that it sees, at the temperature of its softmax, epsilon = 1/2.

    With R the logits less their row means, C = R less its column means, C_s and C_a its two parts: key = N |column means of
    R|^2, metric and repelling = the squares of the positive and of the negative eigenvalues of C_s, antisymmetric = |C_a|^2,
    each over |R|^2.

    Parameters
    ----------
    head : DotProduct
        As `from_safetensors` returns it.
    tokens : (N, n) array
        The hidden states that its layer sees, of one text or of several together.

    Returns
    -------
    Anatomy

    Raises
    ------
    TypeError, ValueError
        Naming the argument: another pseudo-metric, too many tokens for N x N weights, or tokens that all weigh the same.

    Examples
    --------
    >>> import attnflow as af
    >>> tokens = af.Uniform(af.Sphere(2)).sample(1000, rng=0)
    >>> found = anatomy(af.DotProduct(8 * np.eye(3)), tokens)
    >>> found.kind, found.local_directions, found.effective_rank.__round__(6)
    ('metric', 3, 3.0)
    >>> anatomy(af.DotProduct(8 * np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 0.1]])), tokens).verdict
    'In no diffusive limit, because its largest part, 9... %, is antisymmetric: it transports features from some tokens to others.'

    Source: Schoenberg 1938 (squared distances); Castin, Ablin, Carrillo & Peyre, arXiv 2501.18322 (Gaussian tokens).
    """
    checks.instance(head, DotProduct, "head", "a DotProduct, as from_safetensors returns")
    tokens = head.check(tokens).astype(np.float64)
    if len(tokens) < 2:
        raise ValueError(f"tokens must be at least 2 to differ, got {len(tokens)}")
    weights = Attention(head, 0.5).weights(tokens)
    queries, keys = head.query_features(tokens), head.key_features(tokens)
    mean, centred = tokens.mean(axis=0), keys - keys.mean(axis=0)
    by_key = centred @ queries.mean(axis=0)  # the column means of R
    basis, core = _core(queries - queries.mean(axis=0), centred)
    total = len(tokens) * (by_key @ by_key) + (core**2).sum()
    if not 0 < total < np.inf:
        raise ValueError(f"tokens must get different logits from the head, and finite ones, got {checks.short(tokens)}")
    values, vectors = np.linalg.eigh(core / 2 + core.T / 2)
    squares, odd = values**2, core / 2 - core.T / 2
    parts = len(tokens) * (by_key @ by_key), squares[values > 0].sum(), squares[values < 0].sum(), (odd**2).sum()
    shares = {name: float(part / total) for name, part in zip(("key", "metric", "repelling", "antisymmetric"), parts)}

    output = weights @ tokens
    gaussian = mean + queries @ (centred.T @ (tokens - mean)) / len(tokens)
    nearest = None
    if max(shares.values()) == shares["metric"]:
        kept = values > _ROUNDING * values.max()
        coordinates = basis @ vectors[:, kept] * np.sqrt(values[kept])
        near = Attention(SquaredDistance(Euclidean(coordinates.shape[1])), 1.0)(coordinates, tokens)
        nearest = _relative(output - near, output - tokens)

    n = np.eye(tokens.shape[1])
    W = _core(head.query_features(n) - head.query_features(0 * n), head.key_features(n))[1]
    singular, own = np.linalg.svd(W, compute_uv=False), np.linalg.eigvalsh(W / 2 + W.T / 2)
    kept = np.abs(values) > _ROUNDING * np.abs(values).max()
    return Anatomy(
        shares=shares,
        perplexity=float(np.median(np.exp(entr(weights).sum(axis=1)))),
        most_attended=weights.argmax(axis=1),
        symmetric=float(np.linalg.norm(W / 2 + W.T / 2)),
        antisymmetric=float(np.linalg.norm(W / 2 - W.T / 2)),
        definiteness=float(own.sum() / np.abs(own).sum()) if own.any() else 0.0,
        effective_rank=float(np.exp(entr(singular / singular.sum()).sum())) if singular.any() else 0.0,
        spread=float(np.sqrt(total) / len(tokens)),
        eigenvalues=values[kept][::-1] / len(tokens),
        gaussian_error=_relative(output - gaussian, output - mean),
        diffusion_error=nearest,
    )


def _core(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """left right' of (N, r) factors as Q core Q', Q (N, at most 2 r) with orthonormal columns."""
    Q, R = np.linalg.qr(np.concatenate([left, right], axis=1))
    return Q, R[:, : left.shape[1]] @ R[:, left.shape[1] :].T


def _relative(difference: np.ndarray, to: np.ndarray) -> float:
    """|difference| / |to|, zero of nothing."""
    off = float(np.linalg.norm(difference))
    return off and off / max(float(np.linalg.norm(to)), np.finfo(float).tiny)
