"""What a row of the table is, and what rows call functions with."""

from dataclasses import dataclass

import numpy as np

import attnflow as af

CIRCLE, LINE, PLANE, BOX, GLOBE = af.Circle(), af.Euclidean(1), af.Euclidean(2), af.Box([(0, 1)]), af.Sphere(2)
P, UNIFORM, GAUSS = af.VonMises(1.0), af.Uniform(CIRCLE), af.Gaussian(0.0, 1.0)
F = af.SquaredDistance(CIRCLE)
LAYER = af.Attention(F, 0.1)
FLAT = af.Attention(af.SquaredDistance(LINE), 0.4)
LINKED = af.Attention(F, 9.0, mask=[[i, i] for i in range(6)])
SPARSE = af.Attention(F, 0.1, af.Sparse())
HEADS = af.MultiHead([LAYER, LAYER], [0.5, [[0.5]]])
TOKENS = np.linspace(0.1, 6.0, 6)[:, None]
SQUARE = np.ones((3, 3))
POINT = np.array([0.0, 0.0, 1.0])
PDE = af.DriftDiffusion(P)
WALLED = af.Heat(BOX)
START = lambda x: np.cos(x[..., 0])  # noqa: E731
FIELD = af.propagate(LAYER, P, START, 1)
EQUATION = PDE.solve(START, 0.1)
MOVED = af.Solution(np.array([0.0]), TOKENS[None])
STUDY = dict(f=F, density=P, initial=START, t=0.5, epsilons=[0.1], sizes=[100])
A_STUDY = af.ConvergenceStudy(**STUDY)
RESULT = af.StudyResult(A_STUDY, [], "finished")


@dataclass
class Row:
    """One argument: who takes it, what it is called with, and the kinds of values it must refuse."""

    owner: str
    argument: str
    call: object
    kinds: dict
    skip: tuple = ()
    says: str = ""  # what the message begins with, where that is not the argument's name


def optional(owner, argument, call, kinds, *skip, says=""):
    """An argument that may be None."""
    return Row(owner, argument, call, kinds, ("none", *skip), says)
