"""The flow of small layers: tokens that move continuously, with noise or without.

In flat space dx/dt = V (A x - x). On the sphere dx_i/dt = P_x (sum_j S_ij V x_j), P_x the projection on the tangent space
(Geshkovski et al. 2023; Rigollet 2025), of softmax weights (SA) or of K_ij / N (USA). Noise adds `noise` P_x dW to each
token, independently (Mun & Rosenzweig 2026).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import integrate

from .. import capacity, checks
from ..attention import Attention, MultiHead
from ..geometry import Sphere
from ..progress import track
from ..provenance import provenance, seeded
from ..recording import Step, Watch
from ..solution import Solution
from .blocks import TOO_LARGE, LostTokens, along, following, turn
from .diffusions import brownian_step
from .evolution import check_tokens
from .legs import divide

_EXPLICIT = ("RK23", "RK45", "DOP853")
_STEP, _LONG = 0.2, 0.5  # in units of how fast velocities change: a step that is chosen, and one that is warned of
_LOUDEST = 1e150  # noise
_FEWEST = 10  # steps that are chosen
_PROBE = 1e-6  # layers of noise whose effect on the velocities is looked at


def evolve_continuous(
    layer: Attention | MultiHead,
    tokens: np.ndarray,
    t: float | np.ndarray,
    method: str = "RK45",
    rtol: float = 1e-8,
    atol: float = 1e-10,
    value_matrix: np.ndarray | None = None,
    constrain: str | None = None,
    *,
    noise: float = 0.0,
    rng: np.random.Generator | int | None = None,
    steps: int | None = None,
    progress: bool = False,
    save: str = "all",
    callback: Callable[[Step], object] | None = None,
    store: str | os.PathLike | None = None,
) -> Solution:
    """The flow of small residual steps: dx/dt = V (A x - x), on the sphere dx/dt = P_x (V A x).

    Several heads have dx/dt = sum_i A_i x W_i - x, on the sphere P_x (sum_i A_i x W_i). With noise it is the stochastic
    equation dx = V (A x - x) dt + noise dW of tokens that attend to each other, on the sphere
    dx = P_x (V A x) dt + noise P_x o dW, whose noise alone has the generator noise^2 / 2 times the Laplacian.

    Parameters
    ----------
    layer : Attention or MultiHead
        With residual 1: the flow has no step of its own. Normalization "none" on the sphere only.
    tokens : (N, n) array
    t : float or increasing array
        Output times, in layers; the run starts at 0.
    method : str
        One of `scipy.integrate.solve_ivp`'s methods. With noise the method is a splitting, whatever this is: half a
        Brownian step, the flow (Heun), half a Brownian step, of weak order 2.
    rtol, atol : float
        Of the methods without noise.
    value_matrix, constrain
        As in `evolve`.
    noise : float
        Standard deviation of the noise of a coordinate after one layer, >= 0.
    rng : numpy Generator, int or None
        Of the noise.
    steps : int or None
        Of the splitting to the largest time; more, each shorter, where output times are no whole multiples of a step. None:
        a fifth of the time in which the flow or the noise change velocities, as they do at the start.
    progress : bool
        Show a progress bar.
    save, callback, store
        As in `propagate`, of the output times; save is a word.

    Returns
    -------
    Solution
        y is (T, N, n) at the output times; interrupted (status 1) or failed (status -1), at those that were reached and
        where it stopped. stats has the evaluations of the layer; with noise steps, step (the longest), scheme and
        weak_order too.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, before any work: also steps without noise, and steps too long for a sphere.

    Warns
    -----
    AccuracyWarning
        If velocities changed too fast for the steps of the splitting.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> layer = af.Attention(af.DotProduct(), epsilon=0.125)
    >>> run = af.evolve_continuous(layer, x, t=20.0, constrain="sphere")
    >>> bool(run.y[-1][0] @ run.y[-1][1] > 0.99)   # they meet
    True
    >>> noisy = af.evolve_continuous(layer, x, t=20.0, constrain="sphere", noise=2.0, rng=0)
    >>> bool(noisy.y[-1][0] @ noisy.y[-1][1] > 0.9)   # noise keeps them apart
    False
    """
    tokens, V, _ = check_tokens(layer, tokens, value_matrix, constrain)
    times = checks.output_times(t)
    checks.choice(method, "method", (*_EXPLICIT, "Radau", "BDF", "LSODA"))
    rtol, atol = checks.positive(rtol, "rtol"), checks.positive(atol, "atol")
    noise, seed, rng = checks.nonnegative(noise, "noise"), rng, checks.generator(rng)
    if layer.residual != 1:
        raise ValueError(f"layer must have residual = 1: the flow has no step of its own, got {layer.residual}")
    if noise > _LOUDEST:
        raise ValueError(f"noise must be at most {_LOUDEST:g}, beyond which its square is no number, got {noise:g}")
    if steps is not None and not noise:
        raise ValueError(f"steps must be None without noise, whose methods choose them, got {checks.short(steps)}")

    watch = Watch.of_times(save, callback, store)
    capacity.fits(3 * tokens.nbytes * (1 if watch.sparing else len(times)), "t")
    velocity = _Velocity(layer, V, constrain is not None)
    stats: dict[str, Any] = {"engine": layer.bind(tokens).stats["engine"], "evaluations": 0}
    asked: dict[str, Any] = {"value_matrix": V, "constrain": constrain, "noise": noise, "steps": steps}
    asked |= {"rng": seeded(seed, rng)} if noise else {}
    call = provenance("evolve_continuous", layer=layer, tokens=tokens, t=times, method=method, rtol=rtol, atol=atol, **asked)
    run: Iterator[_Step] = iter(())
    if times[-1] == 0:
        noise = 0.0
    elif noise:
        splitting = _Splitting(velocity, noise, tokens, times, steps)
        stats |= splitting.stats
        run = splitting.run(tokens, rng)
    else:
        if method in _EXPLICIT:  # these step no further than is stable, however smooth the run
            capacity.ends(times[-1] * _fastest(layer, V) / 50, "t", 1e-4 + 1e-9 * tokens.size)
        run = _adaptive(velocity, tokens, times, getattr(integrate, method), rtol, atol)
    record = watch.begin(len(times), provenance=call)

    def keep(time: float, there: np.ndarray, watched: bool = True) -> None:
        if constrain:
            there = there / np.linalg.norm(there, axis=-1, keepdims=True)  # the flow keeps the norm to rtol; the points exactly
        record.add(time, there, time, watched)

    last, x, status, message = 0.0, tokens, 0, "finished"
    try:
        if times[0] == 0:
            keep(0.0, tokens)
        for last, x, due in track(run, progress, stats.get("steps"), unit="step"):
            for time, there in due:
                keep(time, there)
    except KeyboardInterrupt:
        if record.last < times[-1]:
            status, message = 1, record.how
    except LostTokens as error:
        status, message = -1, str(error)
    if status:
        if last > record.last and not record.stopped:
            keep(last, x, watched=False)
        message = f"stopped after {record.last:.6g} of {times[-1]:g} layers, what was done is here: {message}"
    stats["evaluations"] = velocity.evaluations
    if noise:
        splitting.warn_if_long()
    return record.solution(status, message, stats)


class _Velocity:
    """V (A x - x) of tokens (N, n), on the sphere P_x V A x of directions x / |x|; counts its evaluations."""

    def __init__(self, layer: Attention | MultiHead, V: np.ndarray | None, sphere: bool) -> None:
        self.layer, self.V, self.sphere, self.evaluations = layer, V, sphere, 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if self.sphere:
            x = x / np.linalg.norm(x, axis=1, keepdims=True)
        with following(given=not self.evaluations):
            target = turn(self.layer.bind(x).attend(x).mean, self.V)
            velocity = target - (along(x, target) if self.sphere else turn(x, self.V))
        if not np.isfinite(velocity).all():
            raise LostTokens(TOO_LARGE)
        self.evaluations += 1
        return velocity


_Step = tuple[float, np.ndarray, list[tuple[float, np.ndarray]]]  # time and tokens after a step, and at the outputs in it


def _adaptive(velocity: _Velocity, tokens: np.ndarray, times: np.ndarray, method, rtol: float, atol: float) -> Iterator[_Step]:
    """The flow without noise, by one of scipy's methods."""
    solver = method(
        lambda _, x: velocity(x.reshape(tokens.shape)).ravel(), 0.0, tokens.ravel(), times[-1], rtol=rtol, atol=atol
    )
    while solver.status == "running":
        before = solver.t
        with np.errstate(over="ignore", invalid="ignore"):
            why = solver.step()
        if solver.status == "failed":
            raise LostTokens.because(why.rstrip("."))
        passed = times[(times > before) & (times <= solver.t)]
        due = solver.dense_output()(passed).T.reshape(-1, *tokens.shape) if len(passed) else ()
        yield solver.t, solver.y.reshape(tokens.shape), list(zip(passed.tolist(), due))


def _fastest(layer: Attention | MultiHead, V: np.ndarray | None) -> float:
    """How fast tokens may approach each other, per layer."""
    if isinstance(layer, MultiHead):
        return 1.0 + sum(float(np.linalg.norm(np.atleast_2d(W), 2)) for W in layer.mixing)
    return 1.0 if V is None else float(np.abs(np.linalg.eigvals(V)).max())


class _Splitting:
    """Half a Brownian step, the flow by Heun's rule, half a Brownian step (Strang): weak order 2.

    Heun's rule is of order 2, the Brownian steps are exact in flat space and of weak order 2 on spheres, and a symmetric
    splitting of two generators is of order 2.
    """

    def __init__(self, velocity: _Velocity, noise: float, tokens: np.ndarray, times: np.ndarray, steps: int | None) -> None:
        self.velocity, self.noise, self.rate = velocity, noise, 0.0
        self._before: tuple[np.ndarray, np.ndarray] | None = None
        self.sphere = Sphere(tokens.shape[1] - 1) if velocity.sphere else None
        dim = 0 if self.sphere is None else self.sphere.dim
        if steps is None:
            self._before = tokens, velocity(tokens)
            self._velocity(self._wander(tokens, _PROBE / max(1.0, noise**2), np.random.default_rng(0)))
            count = times[-1] * (max(self.rate, _fastest(velocity.layer, velocity.V)) + dim * noise**2 / 2) / _STEP
            capacity.ends(count, "t", 1e-4 + 1e-9 * tokens.size)
            steps = max(_FEWEST, int(np.ceil(count)))
        else:
            steps = checks.integer(steps, "steps", least=1)
            least = int(times[-1] * noise**2 * max(dim - 1, 0) / 6) + 1  # where a Brownian step would be longer than its time
            if steps < least:
                raise ValueError(f"steps must be at least {least} to time {times[-1]:g} with noise {noise:g}, got {steps}")
            capacity.ends(steps, "steps", 1e-4 + 1e-9 * tokens.size)
        self.times, self.legs = times, divide(times, steps)
        self.longest = max(h for _, h in self.legs)
        self.stats = {
            "steps": sum(count for count, _ in self.legs),
            "step": float(self.longest),
            "scheme": "splitting" if self.sphere is None else "geodesic splitting",
            "weak_order": 2,
        }

    def run(self, x: np.ndarray, rng: np.random.Generator) -> Iterator[_Step]:
        t, self._before = 0.0, None
        for time, (count, h) in zip(self.times, self.legs):
            start = t
            for k in range(1, count + 1):
                with np.errstate(over="ignore", invalid="ignore"):
                    x = self._wander(self._flow(self._wander(x, h / 2, rng), h), h / 2, rng)
                if not np.isfinite(x).all():
                    raise LostTokens(TOO_LARGE)
                t = float(time) if k == count else start + k * h
                yield t, x, [(t, x)] if k == count else []

    def _wander(self, x: np.ndarray, h: float, rng: np.random.Generator) -> np.ndarray:
        """Tokens after the time h of noise alone."""
        xi = rng.normal(size=x.shape)
        if self.sphere is None:
            return x + self.noise * np.sqrt(h) * xi
        return brownian_step(self.sphere, x, h * self.noise**2 / 2, xi)

    def _flow(self, x: np.ndarray, h: float) -> np.ndarray:
        """Tokens after the time h of the flow alone."""
        here = self._velocity(x)
        there = self._velocity(self._settle(x + h * here))
        return self._settle(x + h / 2 * (here + there))

    def _settle(self, x: np.ndarray) -> np.ndarray:
        return x if self.sphere is None else self.sphere.project(x)

    def _velocity(self, x: np.ndarray) -> np.ndarray:
        """The velocity; how it differs from that of the tokens before is noted in `rate`, root mean squares over all."""
        velocity = self.velocity(x)
        if self._before is not None:
            apart, change = np.linalg.norm(x - self._before[0]), np.linalg.norm(velocity - self._before[1])
            if apart > 1e-9 * np.linalg.norm(x):  # less is rounding
                self.rate = max(self.rate, float(change / apart))
        self._before = x, velocity
        return velocity

    def warn_if_long(self) -> None:
        if self.rate * self.longest > _LONG:
            checks.warn(
                f"steps must be more for weak order 2 to show: in one of {self.longest:.3g} layers velocities changed at a rate "
                f"of {self.rate:.3g} per layer; {int(np.ceil(self.rate * self.times[-1] / _STEP))} would do",
                checks.AccuracyWarning,
            )
