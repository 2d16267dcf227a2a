"""A layer's spectrum on its tokens: rates with the gap before them, and the slowest modes."""

from __future__ import annotations

import numpy as np

from . import style

_MOST = 50_000  # points of a picture that are told apart
_CONNECTED = 1e-6  # of the largest rate: a gap below is none


def plot_rates(spectrum, ax=None):
    """Rates of the modes, stems from zero, and the gap in grey; complex ones in the plane.

    Parameters
    ----------
    spectrum : LayerSpectrum or Spectrum
    ax : Axes, optional

    Returns
    -------
    Axes
    """
    ax = style.new_axes(ax)
    rates = spectrum.rates
    first = int(spectrum.conserved)
    gap = -rates[first].real if len(rates) > first else 0.0
    if gap > 0:
        ax.axhspan(-gap, 0, color="0.93", linewidth=0)
    what = "All but the mean decays" if spectrum.conserved else "Features decay"
    title = f"{what} at rates from {gap:.3g}" if len(rates) > first else "The mean stays"
    if len(rates) > first and gap <= _CONNECTED * np.abs(rates).max():
        title = "Some tokens do not exchange features" if spectrum.conserved else f"Features grow at the rate {-gap:.3g}"
    ylabel = "rate (1/time)"
    if np.iscomplexobj(rates):
        ax.plot(rates.imag, rates.real, "o", color=style.ACCENT, markersize=5)
        style.finish(ax, title, "imaginary part of the rate (1/time)", f"real part of the {ylabel}")
        return ax
    ax.vlines(np.arange(len(rates)), rates, 0, color="0.6", linewidth=1)
    ax.plot(rates, "o", color=style.ACCENT, markersize=5)
    ax.xaxis.get_major_locator().set_params(integer=True)
    style.finish(ax, title, "mode", ylabel)
    return ax


def plot_modes(spectrum, ax=None):
    """Tokens of the plane in the colours of the first mode that decays; else the first two such modes over each other.

    Parameters
    ----------
    spectrum : LayerSpectrum
        Real, with two modes besides the constant; one is enough in the plane.
    ax : Axes, optional

    Returns
    -------
    Axes
    """
    ax = style.new_axes(ax)
    some = np.unique(np.linspace(0, len(spectrum.tokens) - 1, min(len(spectrum.tokens), _MOST)).astype(int))
    tokens, modes = spectrum.tokens[some], spectrum.eigenvectors[1:, some]
    look = {"s": np.clip(4000 / len(some), 1.0, 14.0), "linewidths": 0, "cmap": "viridis"}
    if tokens.shape[1] == 2:
        size = np.abs(modes[0]).max()
        drawn = ax.scatter(*tokens.T, c=modes[0], vmin=-size, vmax=size, **look)
        style.finish(ax, "Tokens in the colours of the slowest mode", "$x_1$ (length)", "$x_2$ (length)")
        ax.set_aspect("equal")
        ax.figure.colorbar(drawn, ax=ax, label="mode 1 (root mean square 1)", shrink=0.9)
        return ax
    ax.scatter(modes[0], modes[1], color=style.ACCENT, **{**look, "cmap": None})
    style.finish(ax, "Tokens by their two slowest modes", "mode 1 (root mean square 1)", "mode 2 (root mean square 1)")
    return ax
