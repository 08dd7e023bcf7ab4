"""Sharing by one process that remembers what it would share with others."""

from __future__ import annotations

from mbench.run.sharing import Alone


class Recorded(Alone):
    def __init__(self):
        self.names = []

    def mine(self, pieces, name, done):
        self.names += [name(piece) for piece in pieces if not done(piece)]
        return super().mine(pieces, name, done)
