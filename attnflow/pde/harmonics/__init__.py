"""Smooth data on S^2: spherical harmonics."""
