"""The field's similarities in one language: initialise, strengthen, normalise, each on dense matrices.

| family | initialise | strengthen | normalise | reference |
|---|---|---|---|---|
| `diffusion_map` | -d^2 | exponential, 2 epsilon | two_sided, rows | Coifman & Lafon 2006 |
| `laplacian_eigenmap` | -d^2, others only | exponential, 2 epsilon | rows | Belkin & Niyogi 2003 |
| `sne` | -d^2, others only | exponential, each row's own sigma | rows | Hinton & Roweis 2002 |
| `tsne` (P) | `sne` | | its mean with its transpose, over N | van der Maaten & Hinton 2008 |
| `student` (Q) | -log(1 + d^2), others only | exponential | overall | van der Maaten & Hinton 2008 |
| `umap` | rho - d, nearest others only | exponential, each row's own sigma | a + a' - a a' | McInnes, Healy & Melville 2018 |
| `nearest` | 1 for the k nearest | | rows | Stone 1977 |
| `fuzzy_c_means` | d^(-2/(m-1)) of centres and tokens | columns, then inflate, m | rows | Bezdek 1981 |
| `markov_clustering` | the square of the weights before | inflate | rows | van Dongen 2000 |
| `mean_shift` | -d^2 of points and tokens | exponential, 2 epsilon | rows | Fukunaga & Hostetler 1975; Cheng 1995 |

d is the Euclidean distance, N the number of tokens. The last three are iterated until they stay. Attention is
`rows(exponential(-f, 2 epsilon))` of a pseudo-metric f, and Nadaraya-Watson regression is `Attention` at queries: these
are layers, streamed, with a limit. Matrices here are dense, float64, of at most 2^26 entries.

Source: Ruan & Zhang 2024, section 2.
"""

from .clusters import FuzzyCMeans, MarkovClustering, MeanShift, fuzzy_c_means, markov_clustering, mean_shift
from .embeddings import diffusion_map, laplacian_eigenmap, nearest, sne, student, tsne, umap
from .matrices import columns, exponential, inflate, overall, rows, two_sided

__all__ = [
    "FuzzyCMeans",
    "MarkovClustering",
    "MeanShift",
    "columns",
    "diffusion_map",
    "exponential",
    "fuzzy_c_means",
    "inflate",
    "laplacian_eigenmap",
    "markov_clustering",
    "mean_shift",
    "nearest",
    "overall",
    "rows",
    "sne",
    "student",
    "tsne",
    "two_sided",
    "umap",
]
