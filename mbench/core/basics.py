"""The selector and the mask builder that most methods share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mbench.core.errors import PluginError
from mbench.core.hookspecs import hookimpl
from mbench.core.interfaces import (
    Budget,
    Component,
    ExpertMask,
    MaskBuilder,
    Scores,
    Selection,
    Selector,
)


class TopK(Selector):
    """The K best experts of every layer by the one corpus's scores, ties by lower index."""

    name = "top-k"

    def select(
        self, scores: Mapping[str, Scores], budget: Budget, rng: np.random.Generator
    ) -> Selection:
        """Return exactly K experts per layer; raises `PluginError` unless there is one corpus."""
        if len(scores) != 1:
            raise PluginError(f"selector 'top-k' takes scores of one corpus, got {len(scores)}")
        (only,) = scores.values()
        chosen = np.zeros(only.values.shape, dtype=bool)
        np.put_along_axis(chosen, only.ranking()[:, : budget.kept], True, axis=1)
        return Selection(chosen)


class AsSelected(MaskBuilder):
    """The selection itself, which must hold exactly K experts per layer."""

    name = "as-selected"

    def build(
        self,
        selection: Selection,
        scores: Mapping[str, Scores],
        budget: Budget,
        candidate: ExpertMask | None,
    ) -> ExpertMask:
        """Return the selection as a mask."""
        return ExpertMask(selection.chosen, selection.notes)


@hookimpl
def mbench_components() -> list[type[Component]]:
    """The components above."""
    return [TopK, AsSelected]
