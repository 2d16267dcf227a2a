"""Smooth data: Fourier nodes where an axis wraps, Legendre nodes between walls."""
