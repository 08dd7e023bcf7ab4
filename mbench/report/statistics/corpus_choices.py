"""The experts that calibration texts choose: the masks of methods that differ only in their one
corpus.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from mbench.core.provenance import MethodSettings
from mbench.report.statistics.boards import Board, GroupBoards
from mbench.report.statistics.mask_overlap import chance, jaccard_by_layer
from mbench.report.words import listing


@dataclass(frozen=True)
class CorpusChoices:
    """Methods with the same components and settings, each on another corpus."""

    id: str
    """Prefix of its anchors on the page."""
    boards: GroupBoards
    methods: Mapping[str, str]
    """Corpus -> method."""
    chosen: Mapping[float, Mapping[str, np.ndarray]]
    """Retain ratio -> corpus -> mask, bool [layers, N]; budgets with at least two masks."""

    @property
    def heading(self) -> str:
        """Its heading on the page."""
        return listing(self.methods.values())

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All pairs of corpora."""
        return list(combinations(self.methods, 2))

    def overlap_by_layer(self, retain: float, pair: tuple[str, str]) -> np.ndarray | None:
        """The pair's Jaccard overlap at a budget, float64 [layers]; None unless both have masks."""
        choices = self.chosen[retain]
        if not choices.keys() >= set(pair):
            return None
        return jaccard_by_layer(*(choices[corpus] for corpus in pair))

    def kept(self, retain: float) -> float:
        """Experts kept per layer at a budget, the mean where layers keep different numbers."""
        return float(self._any_mask(retain).sum(axis=1).mean())

    def chance(self, retain: float) -> float:
        """The expected overlap of two independent random choices at a budget, of as many experts
        in each layer; the mean over layers."""
        mask = self._any_mask(retain)
        by_layer = [chance(mask.shape[1], int(kept)) for kept in mask.sum(axis=1)]
        return math.fsum(by_layer) / len(by_layer)

    def layers(self, retain: float) -> int:
        """MoE layers of the model."""
        return len(self._any_mask(retain))

    def _any_mask(self, retain: float) -> np.ndarray:
        return next(iter(self.chosen[retain].values()))


def corpus_choices(boards: GroupBoards) -> tuple[CorpusChoices, ...]:
    """Every family of methods that has masks."""
    methods = boards.results.provenance.methods.get(boards.group.model, {})
    choices = []
    for number, family in enumerate(families(methods), 1):
        masks = {board.retain: _choices(board, family) for board in boards.boards}
        chosen = {retain: by_corpus for retain, by_corpus in masks.items() if len(by_corpus) > 1}
        if chosen:
            choices.append(CorpusChoices(f"{boards.id}-agreement-{number}", boards, family, chosen))
    return tuple(choices)


def families(methods: Mapping[str, MethodSettings]) -> list[dict[str, str]]:
    """Corpus -> method, for methods that differ only in their corpus; at least two corpora.

    What they build upon may be the same method on the same corpora, as in a cross.
    """
    by_rest: list[tuple[MethodSettings, dict[str, str]]] = []
    for name, method in methods.items():
        if len(method.corpora) != 1:
            continue
        (corpus,) = method.corpora
        candidate, _, crossed = (method.candidate or "").partition("@")
        if candidate and crossed != corpus:
            continue
        rest = replace(method, corpora=(), candidate=candidate or None)
        family = next((family for shared, family in by_rest if shared == rest), None)
        if family is None:
            family = {}
            by_rest.append((rest, family))
        family.setdefault(corpus, name)
    return [family for _, family in by_rest if len(family) > 1]


def _choices(board: Board, family: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Corpus -> mask of its method (of the first seed)."""
    first_cells = {entry.method: entry.cells[0] for entry in board.budget.entries}
    keys = {
        corpus: (board.group.model, first_cells[method].mask)
        for corpus, method in family.items()
        if method in first_cells
    }
    masks = board.results.masks
    return {corpus: masks[key] for corpus, key in keys.items() if key in masks}
