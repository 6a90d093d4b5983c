"""Kernels of units: what every kind of processor shares, and one package for each kind."""
