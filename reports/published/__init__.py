"""Figures that papers state, shown beside those of a run with the same models and methods."""
