"""Curved spaces by name in study files: layers see them as they are, and runs meet what is predicted for them."""

import pickle

import numpy as np
import pytest

from attnflow.geometry import Remetrised
from attnflow.studies.files import read_study

SURFACES = {
    "torus-of-revolution": """
[space]
kind = "torus-of-revolution"
R = 2.0
r = 1.0
[density]
kind = "exp"
parts = [{kind = "sin", axis = 1, factor = 0.4}]
[pseudometric]
kind = "squared-map"
[initial]
kind = "sin"
axis = 1
[study]
t = 0.5
epsilons = [0.125, 0.0833, 0.0625, 0.04]
sizes = ["inf"]
""",
    "ellipsoid": """
[space]
kind = "ellipsoid"
axes = [1.3, 1.0, 0.8]
[density]
kind = "exp"
parts = [{kind = "coordinate", axis = 2, factor = 0.5}]
[pseudometric]
kind = "squared-map"
[initial]
kind = "coordinate"
axis = 2
[study]
t = 0.3
epsilons = [0.1, 0.06, 0.04, 0.03]
sizes = ["inf"]
""",
    "hyperbolic-disc": """
[space]
kind = "hyperbolic-disc"
[density]
kind = "exp"
parts = [{kind = "coordinate", power = 2, factor = -2}, {kind = "coordinate", axis = 1, power = 2, factor = -2}]
[pseudometric]
kind = "hyperbolic"
[initial]
kind = "coordinate"
[study]
t = 0.15
epsilons = [0.1, 0.075, 0.05, 0.0375]
sizes = ["inf"]
""",
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:estimated relative error")  # 9e-8, where the last few nodes of the plane ask for 1e-8
@pytest.mark.parametrize("space", SURFACES)
def test_a_study_of_a_named_surface_meets_its_prediction(space, tmp_path):
    (tmp_path / "s.toml").write_text(SURFACES[space])
    result = read_study(tmp_path / "s.toml").run(progress=False)
    assert result.slope("epsilon")[0] == pytest.approx(result.predicted.slope["epsilon"], abs=0.03)
    assert result.constant("epsilon")[0] == pytest.approx(result.predicted.constant["epsilon"], rel=0.015)


@pytest.mark.parametrize("space", SURFACES)
def test_a_named_surface_is_seen_by_its_layers_as_it_is(space, tmp_path):
    (tmp_path / "s.toml").write_text(SURFACES[space])
    study = read_study(tmp_path / "s.toml")
    x = study.density.space.probe_points()
    induced = Remetrised(study.density.space, study.f.metric)
    np.testing.assert_allclose(induced.metric(x), study.density.space.metric(x), rtol=1e-6, atol=1e-6)
    assert study.f.defects(x)["asymmetry"] == 0 and pickle.loads(pickle.dumps(study)).fingerprint == study.fingerprint  # noqa: S301


@pytest.mark.parametrize(
    "space, old, new, message",
    [
        (
            "torus-of-revolution",
            "r = 1.0",
            "r = 2.0",
            r"^\[space\] of kind 'torus-of-revolution': R must be above r, got R = 2.0",
        ),
        ("torus-of-revolution", "R = 2.0", "", r"^\[space\] of kind 'torus-of-revolution': .*'R'"),
        ("ellipsoid", "[1.3, 1.0, 0.8]", "[1.0, 2.0]", "axes must be three half axes, got 2"),
        ("ellipsoid", "axis = 2,", "axis = 3,", r"^\[density.parts\] of kind 'coordinate': axis must be below 3, got 3$"),
        (
            "hyperbolic-disc",
            '"hyperbolic"',
            '"squared-map"',
            r"^\[pseudometric\] of kind 'squared-map': space must be a surface",
        ),
        ("hyperbolic-disc", "power = 2", "power = 0", r"^\[density.parts\] of kind 'coordinate': power must be"),
    ],
)
def test_a_surface_that_cannot_be_is_named(space, old, new, message, tmp_path):
    assert old in SURFACES[space]
    (tmp_path / "s.toml").write_text(SURFACES[space].replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_study(tmp_path / "s.toml")
