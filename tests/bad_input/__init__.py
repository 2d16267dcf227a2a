"""Every argument of every public function, crossed with what it must refuse: a table in parts, held by tests/test_bad_input.py."""

from .derivations import THEORY
from .equations import EQUATIONS
from .layers import ATTENTION
from .learned import CLASSIFIERS, LEARNING
from .results import RESULTS
from .sharded import SHARDED
from .similarities import SIMILARITY
from .similarity_families import FAMILIES
from .spaces import DENSITIES, GEOMETRY
from .tokens import PARTICLES

ROWS = [
    *GEOMETRY,
    *DENSITIES,
    *SIMILARITY,
    *LEARNING,
    *CLASSIFIERS,
    *ATTENTION,
    *PARTICLES,
    *SHARDED,
    *EQUATIONS,
    *RESULTS,
    *FAMILIES,
    *THEORY,
]
