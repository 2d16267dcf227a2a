"""The tokens that families are checked on, and what is known of them by definition."""

import numpy as np

X = np.sin(0.37 * np.arange(1, 121) ** 1.7).reshape(40, 3) * [1, 1.3, 0.6]
N, EPS = len(X), 0.2
D2 = np.array([[np.sum((x - y) ** 2) for y in X] for x in X])
K = np.exp(-D2 / (2 * EPS))
OTHERS = ~np.eye(N, dtype=bool)


def one_by_one(entry):
    return np.array([[entry(i, j) for j in range(N)] for i in range(N)])


def agree(measured, meant):
    np.testing.assert_allclose(measured, meant, rtol=1e-12, atol=1e-12)


def perplexities(S):
    return np.exp(-np.sum(S * np.log(np.where(S > 0, S, 1)), axis=1))
