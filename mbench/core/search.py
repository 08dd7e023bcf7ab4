"""Methods that try masks on the model before they decide, and what they may ask of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from mbench.core.interfaces import (
    Budget,
    ExpertMask,
    MaskBuilder,
    Profile,
    Scores,
    Selection,
)
from mbench.core.parameters import Parameters


class Probe(ABC):
    """Forward passes of masked models over calibration text, counted and limited.

    The text is the first sequences of each of the method's calibration corpora; evaluation text
    is out of its reach. What was asked before, by any method and in any run, is remembered by the
    mask's content and not computed again; it counts as spent all the same, once in each search,
    so that a method's cost does not depend on what happened to be known.
    """

    corpora: tuple[str, ...]
    """The calibration corpora, in the suite's order."""
    tokens_per_mask: int
    """Forward tokens that one new mask costs, over all corpora."""
    limit: int
    """Most forward tokens that masks may cost: the search's `tokens` without one pass of the full
    model, with which predictions are compared."""
    spent: int
    """Forward tokens that the masks asked for have cost so far; each is counted once, whatever is
    asked of it, but for profiles."""

    @property
    def masks_left(self) -> int:
        """How many more new masks can be asked for."""
        return max(0, self.limit - self.spent) // self.tokens_per_mask

    @abstractmethod
    def losses(self, masks: Sequence[ExpertMask]) -> np.ndarray:
        """Return the mean negative log-likelihood in nats per token, float64 [masks, corpora].

        Many masks at once are cheaper: what masks have in common below the first layer in which
        they differ is computed once. Raises `SearchLimit` if they would cost more than is left.
        """

    @abstractmethod
    def agreements(self, masks: Sequence[ExpertMask]) -> np.ndarray:
        """Return how far predictions agree with the full model's, float64 [masks, corpora].

        It is the mean over tokens of sum over the vocabulary of min(p, q), from 0 to 1. Raises
        `SearchLimit` likewise.
        """

    @abstractmethod
    def profile(self, mask: ExpertMask, corpus: str) -> Profile:
        """Return the statistics that the builder needs, collected under a mask on one corpus.

        It costs the corpus's share of `tokens_per_mask`; raises `SearchLimit` likewise, and
        `PluginError` for a mask with constants or mapped experts: a token's choices are then not
        those of the experts that compute it.
        """


class SearchParameters(Parameters):
    """What every search is limited by; a search's own `Params` extend it."""

    tokens: int = Field(default=1_000_000, ge=1)
    """Most forward tokens the search may spend on each mask that it makes, one pass of the full
    model included."""
    sequences: int = Field(default=8, ge=1)
    """Sequences of each calibration corpus that masks are tried on: its first ones."""


class MaskSearch(MaskBuilder):
    """A mask builder that tries masks on the model, through a `Probe`.

    It is given `search` instead of `build`.
    """

    Params: ClassVar[type[Parameters]] = SearchParameters
    params: SearchParameters
    stochastic: ClassVar[bool] = False
    """Whether `search` draws from `rng`; only then does the seed distinguish results."""

    @abstractmethod
    def search(
        self,
        selection: Selection,
        scores: Mapping[str, Scores],
        budget: Budget,
        candidate: ExpertMask | None,
        probe: Probe,
        rng: np.random.Generator,
    ) -> ExpertMask:
        """Return the mask; the other arguments are those of `build`."""

    def build(
        self,
        selection: Selection,
        scores: Mapping[str, Scores],
        budget: Budget,
        candidate: ExpertMask | None,
    ) -> ExpertMask:
        """Raise `TypeError`: a search needs a probe."""
        raise TypeError(f"{self.name!r} searches: call `search` with a probe")
