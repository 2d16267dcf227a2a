"""What users see of objects: short reprs in their words, formulas that typeset, tables, and help."""

import html.parser
import inspect
import re
from importlib.util import find_spec

import numpy as np
import pytest
import sympy
from matplotlib.mathtext import MathTextParser

import attnflow as af
from attnflow import display, theory
from attnflow.geometry import Reexpressed, Remetrised
from attnflow.learning.maps import AffineMap
from attnflow.studies.surfaces import ellipsoid, squared_map

X0, Y0 = sympy.Symbol("x0", real=True), sympy.Symbol("y0", real=True)
CIRCLE, P, LINE = af.Circle(), af.VonMises(1.5), af.Euclidean(1)
F = af.SquaredDistance(CIRCLE)
LAYER = af.Attention(F, 0.05)
TOKENS = P.sample(40, rng=0)
ELLIPSE = af.SquaredMap(lambda x: np.concatenate([2 * np.cos(x), np.sin(x)], axis=-1))
RING = af.Chart(sympy.diag(1, (2 + sympy.cos(X0)) ** 2), [(0, 2 * np.pi)] * 2, periodic=True)


def start(x):
    return np.cos(x[..., 0])


def across(x):
    return np.ones_like(x)


def fast(x):
    return 2 + start(x)


def doubled(x):
    return np.full((len(x), 1, 1), 2.0)


def things():
    """One of everything that users hold, and some in odd circumstances."""
    two = [LAYER, af.Attention(F, 0.1, "sinkhorn", mask=np.arange(40) // 20)]
    heat = af.Heat(CIRCLE)
    solution = af.DriftDiffusion(P).solve(start, [0.0, 0.1], grid=16)
    run = af.propagate(LAYER, TOKENS, start, 2)
    study = af.ConvergenceStudy(F, P, start, 0.1, [0.05, 0.02], [np.inf], seeds=1)
    line = af.Attention(af.SquaredDistance(LINE), 0.4)
    wide = np.eye(50)
    x0 = sympy.Symbol("x0", real=True)
    long = theory.Formula("H", sum(sympy.cos(k * x0) for k in range(40)), (x0,))
    yield from (
        CIRCLE,
        af.Circle(0.1 + 0.2),
        af.Torus([1 / 3, 2 / 3, 4 / 3]),
        af.Sphere(2),
        LINE,
        af.Box([(0, 1 / 3)] * 3),
        RING,
    )
    yield from (af.Chart.pullback(across, [(0, 1)]), Remetrised(CIRCLE, doubled), af.ConformalHeat(P).space)
    yield from (af.Heat(af.Chart.pullback(across_and_up, [(0, 1)] * 2)), af.Chart(lambda x: doubled(x), [(0, 1)]))
    yield from (P, af.VonMises(1, loc=0.5), af.Density(CIRCLE, start), af.Uniform(RING), af.VonMisesFisher([0, 0, 1.0], 2.0))
    yield from (
        af.Gaussian(np.zeros(50), wide),
        af.Mixture([P] * 20, [0.05] * 20),
        af.KernelDensity(np.random.default_rng(0).normal(size=(90, 2))),
    )
    yield Reexpressed(P, Remetrised(CIRCLE, ELLIPSE.metric))
    yield from (
        F,
        af.PowerDistance(CIRCLE, 1.5),
        af.LogDistance(CIRCLE),
        af.Mahalanobis(wide),
        ELLIPSE,
        af.Cosine(),
        af.DotProduct(),
    )
    yield from (af.DotProduct(wide, wide, bias=wide[0]), af.Additive([1.0], [2.0], [[1.0, 0.0]], np.tanh))
    yield from (af.PseudoMetric(lambda x, y: (x[..., 0] - y[..., 0]) ** 2, 1), af.PseudoMetric(1 - sympy.cos(X0 - Y0), 1))
    yield af.PseudoMetric(lambda x, y: x[..., 0] - y[..., 0], 1).transposed()
    yield from (*two, af.MultiHead(two), af.Sharded(LAYER), LAYER.bind(TOKENS), LAYER.plan(TOKENS), LAYER.spectrum(TOKENS, 3))
    yield from (
        af.DensityCorrected(1 / 3),
        af.Sinkhorn(),
        af.TopK(5),
        af.Sparse(1 / 3),
        af.Screening(1 / 3),
        af.Perplexity(5.0),
    )
    yield from (heat, af.DriftDiffusion(P, mobility=fast), af.limit(af.Attention(ELLIPSE, 0.05), P), af.ConformalHeat(P))
    yield from (
        af.FokkerPlanck(P),
        af.General(P, across),
        af.Heads([heat] * 9, [1 / 9] * 9),
        af.MeanField(line, af.Gaussian(0.0, 1.0)),
    )
    yield from (
        heat.spectrum(30, grid=64),
        solution,
        solution.grid,
        run,
        af.compare(run, run),
        af.GaussianTokens(np.zeros(9), np.eye(9)),
    )
    yield af.evolve(af.Attention(af.DotProduct(), 0.1), af.Sphere(2).probe_points(6), 2, constrain="sphere")
    yield from (af.GaussianTokens([0.0], [[1.0]]).evolve(line, 2), af.NoisyTokens(af.Attention(af.DotProduct(), 0.5), 2))
    yield from (af.predicted_bias(LAYER, P, start, 0.1), af.predicted_noise(LAYER, P, start, 0.1, 100))
    yield from (af.predicted_error(LAYER, P, start, 0.1, 1000), af.error_bars(LAYER, TOKENS, start, 2))
    yield from (study, result := study.run(progress=False), result.predicted, af.error_budget(F, P, start, 0.1, 0.2))
    yield from (
        long,
        theory.layer(theory.isotropic_kernel(1), "softmax"),
        af.families.mean_shift(TOKENS, 0.5),
    )
    yield from results(study, result)


def results(study, result):
    """What runs and layers return, and hand to callbacks."""
    two = af.MultiHead([LAYER, af.Attention(F, 0.1, af.TopK(5))])
    yield from (af.feynman_kac(P, start, TOKENS[:9], [0.1, 0.2], 200, rng=0), af.langevin(P, TOKENS[:2], 0.1, 3, rng=0))
    yield from (af.parity(LAYER, TOKENS, TOKENS), af.attention_costs(64, 100), af.standard_attention(*[np.eye(4)] * 4, heads=2))
    yield from af.parity(LAYER, TOKENS, TOKENS, ["reference", "cupy"]).rows
    yield from (
        two.bind(TOKENS),
        *two.bind(TOKENS).heads,
        two.bind(TOKENS).attend(TOKENS),
        two.bind(TOKENS).heads[0].attend(TOKENS),
    )
    yield from (
        af.Attention(ELLIPSE, 0.1).vjp(TOKENS, TOKENS, TOKENS),
        af.extrapolate(LAYER, P, start, 2),
        af.predicted_rates(LAYER, P, 3, 500),
    )
    yield af.Attention(F, 0.05, mask="causal").spectrum(TOKENS, 4)
    steps = []
    af.propagate(LAYER, TOKENS, TOKENS, 2, callback=lambda step: steps.append(step))
    yield from (steps[-1], af.NoisyTokens(af.Attention(af.DotProduct(), 0.5), 1).states(1.5))
    yield from (
        study.cells()[0],
        af.ConvergenceStudy(F, P, start, 0.1, [0.05, 0.02, 0.01], [np.inf]).run(progress=False).slope("epsilon"),
    )
    if find_spec("IPython"):  # without which there is none
        figure = af.LiveFigure()
        assert repr(figure) == "LiveFigure(nothing is finished yet)"
        figure._seen = result
        yield figure


def across_and_up(x):
    return np.concatenate([x, x[..., :1] ** 2], axis=-1)


@pytest.fixture(scope="module")
def held():
    return list(things())


def test_there_is_one_of_every_public_class(held):
    classes = {getattr(module, name) for module in (af, af.families) for name in module.__all__}
    missing = {c for c in classes if inspect.isclass(c)} - {base for thing in held for base in type(thing).__mro__}
    assert {c.__name__ for c in missing} <= {"FuzzyCMeans", "MarkovClustering"}  # as MeanShift


# of Python and others, and those that only our solvers and engines hold
NOT_HELD = set(
    "Any Callable None Self bool dict float int list str np random ndarray Generator sparse csr_array LinearOperator".split()
)
NOT_HELD |= {"Cells", "Law"}


def test_there_is_one_of_everything_that_is_returned(held):
    public = [getattr(af, name) for name in af.__all__]
    members = [m for cls in public if inspect.isclass(cls) for name, m in inspect.getmembers(cls) if name[0] != "_"]
    makers = [*public, *(getattr(member, "fget", member) for member in members)]
    said = {str(inspect.get_annotations(maker).get("return")) for maker in makers if inspect.isfunction(maker)}
    there = {base.__name__ for thing in held for base in type(thing).__mro__}
    assert set(re.findall(r"\w+", " ".join(said))) <= there | NOT_HELD


def test_reprs_are_short_and_in_the_users_words(held):
    for thing in held:
        text = repr(thing)
        assert len(text) <= 120 and "\n" not in text, text
        assert not re.search(r" at 0x|<function|<lambda>|array\(|(?<![A-Za-z0-9])_[A-Z]", text), text


def test_what_was_given_is_said():
    assert repr(af.Attention(F, 0.05, af.TopK(5), residual=0.5)) == (
        "Attention(SquaredDistance(Circle()), epsilon=0.05, normalization='topk:5', residual=0.5)"
    )
    assert repr(af.limit(af.Attention(af.Mahalanobis([[4.0]]), 0.1), af.Gaussian(0.0, 1.0))) == (
        "DriftDiffusion(Gaussian([0], [[1]]) under Mahalanobis([[4]]).metric, drift=2)"
    )
    assert repr(af.General(P, across, drift=1.0)) == "General(VonMises(1.5), across, drift=1)"


def test_results_say_what_came_out():
    means = af.feynman_kac(P, start, TOKENS[:9], [0.1, 0.2], 200, rng=0)
    assert repr(means) == "FeynmanKac(9 points, 2 times, 200 paths, 'finished')"
    assert ["largest standard error", f"{means.standard_error.max():.3g}"] in Table(means._repr_html_()).rows
    engines = af.parity(LAYER, TOKENS, TOKENS, ["reference", "graph"])
    assert repr(engines) == "ParityTable(1 of 2 engines ran, differ by at most 0.0e+00)"
    rows = [line.split() for line in str(engines).splitlines()]
    assert [row[:5] for row in Table(engines._repr_html_()).rows] == [row[:5] for row in rows]
    assert rows[2][:5] == ["graph", "yes", "no", "-", "-"]
    assert repr(af.attention_costs(64, 100)) == "CostTable(4 variants, d = 64, N = 100)"
    assert repr(af.SquaredMap(AffineMap(np.eye(10)[:, :2], np.zeros(10)))) == "SquaredMap(affine map of 2 columns to 10)"
    assert af.SquaredMap(AffineMap(np.eye(10), np.zeros(10))).latex == r"f(x, y) = |\varphi(x) - \varphi(y)|^2"
    assert repr(squared_map(ellipsoid([1.0, 1.0, 2.0]))) == "SquaredMap(ellipsoid(axes=[1, 1, 2]))"


def test_complex_numbers_are_short_and_real_where_they_are():
    assert [display.word(z) for z in (np.complex128(0.99 + 0j), 1 / 3 - 2j / 3, np.array([1j, 2.0]))] == [
        "0.99",
        "0.333333-0.666667j",
        "[0+1j, 2]",
    ]
    spectrum = af.Attention(F, 0.05, mask="causal").spectrum(TOKENS, 4)
    assert Table(spectrum._repr_html_()).rows[1] == ["0", "1", "0"]


@pytest.mark.parametrize(
    "make", [CIRCLE, af.Circle(0.5), af.Torus([1.0, 2 * np.pi]), af.Sphere(2), LINE, af.Box([(0, 1)])], ids=repr
)
def test_reprs_of_flat_spaces_make_the_space_again(make):
    again = eval(repr(make), {**vars(af), "pi": np.pi})
    assert again == make and repr(again) == repr(make)


K = r"K_{ij} = e^{-f(x_i, x_j) / 0.1}, \quad f(x, y) = d(x, y)^2, \quad x, y \in S^1"
WEIGHTS = {
    "softmax": r"S_{ij} \propto " + K,
    "column": r"S_{ij} \propto K_{ij} \, / \, \sum_k K_{kj}, \quad " + K,
    "sinkhorn": r"S_{ij} = v_i K_{ij} v_j, \quad \sum_j S_{ij} = 1, \quad " + K,
    af.DensityCorrected(0.5): r"S_{ij} \propto K_{ij} \, / \, \left(\sum_k K_{jk}\right)^{0.5}, \quad " + K,
}


@pytest.mark.parametrize("rule", WEIGHTS, ids=str)
def test_weights_are_those_of_the_normalisation(rule):
    assert af.Attention(F, 0.05, rule).latex == WEIGHTS[rule]


FORMULAS = {
    r"\partial_t H = \Delta H + 2 \, \langle \nabla \log p, \nabla H \rangle, \quad p(\theta) \propto e^{1.5 \, \cos \theta}": (
        lambda: af.limit(LAYER, P)
    ),
    r"\partial_t H = \Delta H - \langle \nabla \log p, \nabla H \rangle, \quad p(\theta) \propto e^{1.5 \, \cos \theta}": (
        lambda: af.DriftDiffusion(P, -1.0)
    ),
    r"\partial_t H = p^{-4} \Delta_G H, \quad G = p^{-4} g, \quad p(\theta) \propto e^{1.5 \, \cos \theta}": (
        lambda: af.ConformalHeat(P)
    ),
    r"\partial_t \rho = \nabla \cdot \left(p \nabla (\rho / p)\right), \quad p = \frac{1}{2 \pi}": (
        lambda: af.FokkerPlanck(af.Uniform(CIRCLE), 1.0)
    ),
    r"\partial_t H = \Delta_g H, \quad x \in (S^{2}, g), \quad g = \frac{1}{2} g_{\mathrm{round}}, \quad f(x, y) = -x^\top y, \quad x, y \in S^{2}": (
        lambda: af.limit(af.Attention(af.DotProduct(), 0.1, af.DensityCorrected(1.0)), af.VonMisesFisher([0.0, 0.0, 1.0], 1.0))
    ),
    r"\partial_t H = \Delta H, \quad x \in S^1": lambda: af.ConformalHeat(P, drift=0),
    r"\partial_t H = \Delta H, \quad x \in S^{2}": lambda: af.ConformalHeat(af.Uniform(af.Sphere(2))),
    r"\partial_t \rho = \Delta \rho, \quad x \in S^1": lambda: af.FokkerPlanck(P, 0.0),
    r"p(\theta) \propto e^{\cos (\theta - 0.5)}": lambda: af.VonMises(1.0, 0.5),
    r"p = 0.25 \, p_1 + 0.75 \, p_2, \quad p_1 = \mathcal{N}\left(0, 1\right), \quad p_2 = \mathcal{N}\left(2, 9\right)": (
        lambda: af.Mixture([af.Gaussian(0.0, 1.0), af.Gaussian(2.0, 9.0)], [0.25, 0.75])
    ),
    r"f(x, y) = d(x, y)^{1.5}, \quad x, y \in \mathbb{R}^{2}": lambda: af.PowerDistance(af.Euclidean(2), 1.5),
    r"f(x, y) = 1 - \cos{\left(x_{0} - y_{0} \right)}": lambda: af.PseudoMetric(1 - sympy.cos(X0 - Y0), 1),
    r"f(x, y) = -(W_Q x + b)^\top W_K y": lambda: af.DotProduct(np.eye(2), np.eye(2), bias=[1.0, 0.0]),
}


@pytest.mark.parametrize("latex", FORMULAS)
def test_formulas_hold_what_was_given(latex):
    thing = FORMULAS[latex]()
    assert thing.latex == latex
    assert thing._repr_latex_() == f"$\\displaystyle {latex}$"


def test_the_metric_that_was_given_is_in_the_equation():
    assert af.Heat(RING).latex.endswith(
        r"g = \begin{pmatrix}1 & 0\\0 & \left(\cos{\left(x_{0} \right)} + 2\right)^{2}\end{pmatrix}"
    )
    squared = af.limit(af.Attention(ELLIPSE, 0.05), P).latex
    assert r"\Delta_g H" in squared and squared.endswith(r"g = J^\top J, \quad J = \nabla \varphi")


def test_all_formulas_are_latex(held):
    parser, count = MathTextParser("path"), 0
    for thing in held:
        latex = getattr(thing, "latex", None)
        if latex is not None:
            assert latex.count("{") == latex.count("}") and "$" not in latex
            if "pmatrix" not in latex:  # which mathtext lacks
                parser.parse(f"${latex}$")
                count += 1
    assert count > 30


class Table(html.parser.HTMLParser):
    """Rows of cells."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.open = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data


def test_tables_are_whole_and_small(held):
    tables = [thing for thing in held if hasattr(type(thing), "_repr_html_")]
    assert {type(t).__name__ for t in tables} >= {
        "Attention",
        "MultiHead",
        "LayerSpectrum",
        "Spectrum",
        "Solution",
        "Comparison",
    }
    for thing in tables:
        table = Table(thing._repr_html_())
        assert not table.open and 2 <= len(table.rows) <= 18
        assert not re.search(" at 0x|array\\(", str(table.rows))


def test_a_table_has_the_numbers():
    run = af.propagate(LAYER, TOKENS, start, 2)
    field = af.limit(LAYER, P).solve(start, run.t)
    comparison = af.compare(run, field)
    assert Table(comparison._repr_html_()).rows[-1] == [f"{run.t[-1]:.4g}", f"{comparison.error[-1]:.3g}"]
    assert ["time step", "0.025"] in Table(LAYER._repr_html_()).rows
    spectrum = af.Heat(CIRCLE).spectrum(30, grid=64)
    assert Table(spectrum._repr_html_()).rows[-1] == ["...", "30 in all"]
    predicted = af.predicted_error(LAYER, P, start, 0.2, 500)
    assert Table(predicted._repr_html_()).rows[0] == ["relative error", f"{predicted.relative:.3g}"]
    bars = af.error_bars(LAYER, TOKENS, start(TOKENS), 2)
    assert Table(bars._repr_html_()).rows[-1] == ["together", f"{bars.relative:.3g}"]
    study = af.ConvergenceStudy(F, P, start, 0.5, [0.04, 0.02, 0.01], [np.inf])
    result = study.run(progress=False)
    row = Table(result._repr_html_()).rows[1]
    assert (
        row[:2] == ["slope in epsilon", f"{result.slope('epsilon').value:.4g}"] and row[-1] == "-"
    )  # predicted only if asked for
    assert result.predicted.slope["epsilon"] == 1 and Table(result._repr_html_()).rows[1][-1] == "1"


def test_text_is_not_taken_for_html():
    assert Table(display.table("<b>", [("<i>", "a < b & c")])).rows == [["<i>", "a < b & c"]]


def test_dir_has_the_public_names_only():
    assert {*dir(af)} == {
        *af.__all__,
        "theory",
        "families",
        "learning",
        "DiffusionMap",
        "LiveFigure",
        "LivePage",
        "__version__",
    }


@pytest.mark.parametrize("name", [name for name in af.__all__ if inspect.isclass(getattr(af, name))])
def test_help_explains_every_member(name):
    cls = getattr(af, name)
    own = [m for m in dir(cls) if not m.startswith("_") and not isinstance(getattr(cls, m), (int, float, str, type(None)))]
    silent = [m for m in own if not inspect.getdoc(getattr(cls, m))]
    assert not silent
