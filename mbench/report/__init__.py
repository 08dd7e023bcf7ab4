"""The HTML leaderboard: one self-contained page that follows from `Results` alone."""

from mbench.report.render import render

__all__ = ["render"]
