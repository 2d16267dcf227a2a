"""Tokens that move with noise: one step against the exact law, many against a known variance, and what is refused."""

import itertools

import numpy as np
import pytest
from numpy.polynomial import chebyshev
from scipy.linalg import expm

import attnflow as af

BETA, PUSH, NOISE = 2.0, 1.5, 0.8


def pairs(count, columns):
    """Unit vectors of cosine 0.6 in turn (1 and 0.6 on the line), and a mask under which they see each other two by two."""
    tokens = np.zeros((2 * count, columns))
    tokens[::2, 0] = 1.0
    tokens[1::2, :2] = [0.6, 0.8][:columns]
    return tokens, np.arange(2 * count) // 2


def cubature(dim):
    """Nodes and weights that average polynomials of degree 5 over normal numbers (McNamee & Stenger 1967)."""
    nodes, weights = [np.zeros(dim)], [1 + (dim**2 - 7 * dim) / 18]
    for size, weight in ((1, (4 - dim) / 18), (2, 1 / 36)):
        for where in itertools.combinations(range(dim), size):
            for signs in itertools.product((-1, 1), repeat=size):
                node = np.zeros(dim)
                node[list(where)] = np.sqrt(3) * np.array(signs)
                nodes.append(node)
                weights.append(weight)
    return np.array(nodes), np.array(weights)


class Nodes(np.random.Generator):
    """Gives out arrays in place of random ones."""

    def __init__(self, arrays):
        super().__init__(np.random.PCG64(0))
        self.left = iter(arrays)

    def normal(self, size):
        return next(self.left).reshape(size)


def exact_cosine(dim, weight, h, start=0.6):
    """E cos after the time h: generator 2 w (1 - z^2) d + noise^2 ((1 - z^2) d^2 - n z d) of z = cos of the angle of two."""
    z = np.cos(np.pi * (np.arange(40) + 0.5) / 40)
    basis = chebyshev.chebvander(z, 39)
    first, second = (
        np.stack([chebyshev.chebval(z, chebyshev.chebder(e, k)) for e in np.eye(40)], axis=1) @ np.linalg.inv(basis)
        for k in (1, 2)
    )
    z = z[:, None]
    L = 2 * PUSH * weight(z) * (1 - z**2) * first + NOISE**2 * ((1 - z**2) * second - dim * z * first)
    return chebyshev.chebval(start, np.linalg.solve(basis, expm(h * L) @ z[:, 0]))


@pytest.mark.parametrize("normalization", ["softmax", "none"])
@pytest.mark.parametrize("dim", [1, 2])
def test_a_step_on_the_sphere_has_an_error_of_order_three(dim, normalization):
    nodes, weights = cubature(4 * (dim + 1))  # of two tokens, in two halves of a step
    tokens, mask = pairs(len(nodes), dim + 1)
    halves = nodes.reshape(len(nodes), 2, 2, dim + 1).swapaxes(0, 1)
    layer = af.Attention(af.DotProduct(), 1 / (2 * BETA), normalization, mask=mask)
    weight = {"softmax": lambda z: 1 / (1 + np.exp(BETA * (1 - z))), "none": lambda z: np.exp(BETA * z) / 2}[normalization]
    sizes, errors = np.array([0.02, 0.01, 0.005]), []
    for h in sizes:
        run = af.evolve_continuous(
            layer, tokens, h, value_matrix=PUSH * np.eye(dim + 1), constrain="sphere", noise=NOISE, rng=Nodes(halves), steps=1
        )
        np.testing.assert_allclose(np.linalg.norm(run.y, axis=-1), 1, atol=1e-14)
        errors.append(abs(weights @ np.sum(run.y[0, ::2] * run.y[0, 1::2], axis=1) - exact_cosine(dim, weight, h)))
    assert errors[-1] < 1e-5
    assert np.polyfit(np.log(sizes), np.log(errors), 1)[0] == pytest.approx(3, abs=0.25)


@pytest.mark.parametrize("steps, warned", [(20, True), (40, False), (80, False)])
def test_many_steps_on_the_line_have_the_variance_of_the_rule_which_is_of_order_two(steps, warned, recwarn):
    # equal weights of two: their difference is an Ornstein-Uhlenbeck process of rate 1, of variance noise^2
    tokens, mask = pairs(4000, 1)
    layer = af.Attention(af.SquaredDistance(af.Euclidean(1)), 1e9, mask=mask)
    run = af.evolve_continuous(layer, tokens, np.arange(2.0, 21.0, 2.0), noise=NOISE, rng=1, steps=steps)
    assert run.stats["weak_order"] == 2 and run.stats["steps"] == steps and run.stats["evaluations"] == 2 * steps
    h = run.stats["step"]
    kept = (1 - h + h**2 / 2) ** 2
    exact = NOISE**2 * h * (1 + kept) / (1 - kept)  # = noise^2 (1 + 7 h^2 / 12 + ...)
    squares = (run.y[2:, ::2] - run.y[2:, 1::2]) ** 2
    assert squares.mean() == pytest.approx(exact, abs=4 * squares.std() / np.sqrt(squares.size / 1.4))  # e^-4 between outputs
    assert bool(len(recwarn)) == warned and all("steps must be more" in str(w.message) for w in recwarn)


def test_noise_alone_lets_harmonics_decay_at_half_their_eigenvalue():
    # a token that sees itself alone wanders: E cos of the way it went is exp(-n noise^2 t / 2) on S^n
    tokens = np.tile([1.0, 0.0, 0.0, 0.0], (10_000, 1))
    layer = af.Attention(af.DotProduct(), 0.5, mask=np.arange(len(tokens)))
    run = af.evolve_continuous(layer, tokens, [0.5, 1.0], constrain="sphere", noise=0.7, rng=0)
    gone = run.y[..., 0]
    assert (np.abs(gone.mean(axis=1) - np.exp(-3 * 0.49 / 2 * run.t)) < 4 * gone.std(axis=1) / 100).all()


def test_usa_of_two_tokens_closes_their_angle_at_its_own_rate():
    # d cos / dt = e^(b cos) (1 - cos^2) without noise
    tokens, layer = pairs(1, 2)[0], af.Attention(af.DotProduct(), 1 / (2 * BETA), "none")
    run = af.evolve_continuous(layer, tokens, [1e-4], constrain="sphere")
    assert (run.y[0, 0] @ run.y[0, 1] - 0.6) / 1e-4 == pytest.approx(np.exp(BETA * 0.6) * 0.64, rel=1e-3)


def test_the_same_seed_gives_the_same_bits_and_no_noise_the_flow():
    tokens = af.Uniform(af.Sphere(2)).sample(300, rng=0)
    layer = af.Attention(af.DotProduct(), 0.25)
    runs = [af.evolve_continuous(layer, tokens, [0.2, 0.5], constrain="sphere", noise=0.5, rng=r).y for r in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not (runs[0] == runs[2]).any()
    nearly = af.evolve_continuous(layer, tokens, 0.5, constrain="sphere", noise=1e-9, rng=0, steps=40).y[-1]
    flow = af.evolve_continuous(layer, tokens, 0.5, constrain="sphere").y[-1]
    np.testing.assert_allclose(nearly, flow, atol=1e-5)


def test_an_interrupted_run_with_noise_returns_how_far_it_came(monkeypatch):
    calls, real = [], af.attention.BoundLayer.attend

    def attend(self, values):
        calls.append(1)
        if len(calls) == 40:
            raise KeyboardInterrupt
        return real(self, values)

    monkeypatch.setattr(af.attention.BoundLayer, "attend", attend)
    layer = af.Attention(af.SquaredDistance(af.Euclidean(1)), 1.0)
    run = af.evolve_continuous(layer, [[0.0], [1.0]], [0.05, 10.0], noise=1.0, rng=0)
    assert run.status == 1 and "interrupted" in run.message and run.t[0] == 0.05 < run.t[1] < 10 and np.isfinite(run.y).all()


LAYER, X = af.Attention(af.DotProduct(), 0.25), [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"noise": -0.1}, "noise must be at least 0"),
        ({"noise": [0.1]}, "noise must be a real number"),
        ({"noise": 0.1, "rng": "seed"}, "rng must be a numpy Generator"),
        ({"steps": 10}, "steps must be None without noise"),
        ({"noise": 0.1, "steps": 0}, "steps must be at least 1"),
        ({"noise": 4.0, "steps": 2}, "steps must be at least 3 to time 1 with noise 4"),
        ({"noise": 1e200}, r"noise must be at most 1e\+150"),
        ({"noise": 1e9}, "t must end within 30 days"),
    ],
)
def test_bad_input_names_the_argument(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        af.evolve_continuous(LAYER, X, 1.0, constrain="sphere", **options)


def test_sums_move_tokens_on_the_sphere_only():
    sums = af.Attention(af.DotProduct(), 0.25, "none")
    for run in (lambda: af.evolve(sums, X, 1), lambda: af.evolve_continuous(sums, X, 1.0)):
        with pytest.raises(ValueError, match="constrain must be 'sphere' for normalization 'none'"):
            run()
