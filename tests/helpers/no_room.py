"""A machine without memory for what a mask needs beside the model."""

from __future__ import annotations

import contextlib

import torch

import mbench.moe.mask as masks


def no_room_for_masks(monkeypatch):
    """Only what keeps all experts can be applied."""
    applied = masks.masked

    @contextlib.contextmanager
    def masked(layers, mask, router="sliced"):
        if not masks.checked(layers, mask).keep.all():
            raise torch.OutOfMemoryError("out of memory")
        with applied(layers, mask, router):
            yield

    monkeypatch.setattr(masks, "masked", masked)
