"""Sharing by one process that remembers what it would share with others."""

from __future__ import annotations

from mbench.run.sharing import Alone


class Recorded(Alone):
    def __init__(self):
        self.names = []

    def each(self, pieces, name, done, do):
        self.names += [name(piece) for piece in pieces if not done(piece)]
        super().each(pieces, name, done, do)
