"""What a search may ask of the model: counted, limited, and remembered in the store.

A mask's loss and agreement come from one pass, so that asking for both costs no more than for
either. They are stored by the mask's content as soon as they are known: a search that was killed
asks for the same masks again and gets them from the store.

The cost of a search does not depend on what was known. It is the tokens of all distinct masks
that were measured, of all distinct pairs of mask and corpus that were profiled, and of one pass
of the full model if any mask was measured: predictions are compared with that.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mbench.core.cell_results import CellKey, SearchCost
from mbench.core.errors import PluginError, SearchLimit
from mbench.core.interfaces import ExpertMask, Profile, Statistic
from mbench.core.search import MaskSearch, Probe
from mbench.core.stand_ins import keeps_router
from mbench.plan.cells import Cell
from mbench.run.mask_checks import frozen
from mbench.run.mask_maker import profile_of
from mbench.run.probe_passes import Measured, ProbePasses
from mbench.run.profile_stage import corpus_profile
from mbench.run.session import ModelSession
from mbench.storage.store import Key

MOST_AT_ONCE = 64
"""Masks in one pass over the text; what is known of them is stored after it."""


@dataclass
class _Asked:
    """What a search has asked for, which decides its cost."""

    measured: set[str] = field(default_factory=set)
    """Masks by their content."""
    profiled: set[tuple[str, str]] = field(default_factory=set)
    """(mask, corpus)."""


class CellProbe(Probe):
    """The probe of one cell's search."""

    def __init__(self, session: ModelSession, passes: ProbePasses, cell: Cell) -> None:
        """Tokenise the calibration corpora; `passes` are those of the model."""
        builder = cell.method.builder
        if not isinstance(builder, MaskSearch):
            raise TypeError(f"{builder.name!r} does not search")
        params = builder.params
        self.corpora = cell.method.corpora
        self._sequences = params.sequences
        self._tokens = {
            corpus: passes.text(corpus, params.sequences).tokens for corpus in self.corpora
        }
        self.tokens_per_mask = sum(self._tokens.values())
        self._allowed = params.tokens
        # The full model's pass is part of what the search may cost.
        self.limit = max(0, params.tokens - self.tokens_per_mask)
        self._session = session
        self._passes = passes
        self._cell = cell
        self._needs = builder.needs
        self._asked = _Asked()
        self._known: dict[tuple[str, str], Measured] = {}
        self._start = time.perf_counter()

    @property
    def spent(self) -> int:  # type: ignore[override]
        """Forward tokens of the masks asked for so far."""
        profiled = sum(self._tokens[corpus] for _, corpus in self._asked.profiled)
        return len(self._asked.measured) * self.tokens_per_mask + profiled

    @property
    def note(self) -> str:
        """What a reader must know of a search that could try nothing, in one line; else empty."""
        if self.limit >= self.tokens_per_mask:
            return ""
        return (
            f"the search could try no mask: {self._allowed} tokens were allowed, and one mask"
            f" takes {2 * self.tokens_per_mask}, with the full model's pass (parameter `tokens`)"
        )

    @property
    def cost(self) -> SearchCost:
        """What the search has cost until now."""
        reference = self.tokens_per_mask if self._asked.measured else 0
        masks = self._asked.measured | {mask for mask, _ in self._asked.profiled}
        return SearchCost(
            tokens=self.spent + reference,
            masks=len(masks),
            seconds=round(time.perf_counter() - self._start, 3),
        )

    def losses(self, masks: Sequence[ExpertMask]) -> np.ndarray:
        """See `Probe`; float64 [masks, corpora]."""
        return self._measured(masks, "loss")

    def agreements(self, masks: Sequence[ExpertMask]) -> np.ndarray:
        """See `Probe`; float64 [masks, corpora]."""
        return self._measured(masks, "agreement")

    def _measured(self, masks: Sequence[ExpertMask], what: str) -> np.ndarray:
        for mask in masks:
            self._check(mask)
        asked = {mask.content_hash: mask for mask in masks}
        new = len(asked.keys() - self._asked.measured)
        self._afford(new * self.tokens_per_mask, "1 more mask" if new == 1 else f"{new} more masks")
        self._asked.measured |= asked.keys()
        for corpus in self.corpora:
            unknown = [mask for name, mask in asked.items() if not self._recall(name, corpus)]
            for at in range(0, len(unknown), MOST_AT_ONCE):
                self._try(corpus, unknown[at : at + MOST_AT_ONCE])
        values = [
            [getattr(self._known[mask.content_hash, corpus], what) for corpus in self.corpora]
            for mask in masks
        ]
        return np.array(values, dtype=np.float64).reshape(len(masks), len(self.corpora))

    def _check(self, mask: Any) -> None:
        budget = self._cell.budget
        shape = (budget.num_layers, budget.num_experts)
        keep = getattr(mask, "keep", None)
        fits = isinstance(keep, np.ndarray) and keep.shape == shape and keep.dtype == bool
        if not isinstance(mask, ExpertMask) or not fits:
            raise PluginError(
                f"builder {self._cell.method.builder.name!r} must ask its probe for ExpertMasks of"
                f" bool {list(shape)}"
            )

    def _afford(self, tokens: int, what: str) -> None:
        if self.spent + tokens > self.limit:
            raise SearchLimit(
                f"the search may spend {self.limit} forward tokens on masks and has spent"
                f" {self.spent}; {what} would cost {tokens} (see its parameter `tokens`)"
            )

    def _recall(self, mask: str, corpus: str) -> bool:
        """Whether a mask is known on a corpus, perhaps from the store."""
        if (mask, corpus) not in self._known:
            stored = self._session.store.read_json(self._key(mask, corpus))
            if stored is None:
                return False
            self._known[mask, corpus] = Measured(stored["loss"], stored["agreement"])
        return True

    def _try(self, corpus: str, masks: Sequence[ExpertMask]) -> None:
        tried = len(self._asked.measured)
        self._session.progress.stage(f"mask {self._cell.label}: {tried} masks tried")
        router = self._cell.budget.router
        measured = self._passes.measure(corpus, self._sequences, masks, router)
        for mask, each in zip(masks, measured, strict=True):
            name = mask.content_hash
            self._session.store.write_json(self._key(name, corpus), vars(each))
            self._known[name, corpus] = each

    def _key(self, mask: str, corpus: str) -> Key:
        plan, model = self._session.plan, self._session.model
        return plan.probe_key(model, self._cell, corpus, mask, self._sequences)

    def profile(self, mask: ExpertMask, corpus: str) -> Profile:
        """See `Probe`."""
        self._check(mask)
        if corpus not in self.corpora:
            raise PluginError(
                f"builder {self._cell.method.builder.name!r} asks for a profile on {corpus!r},"
                f" which is none of its corpora ({', '.join(self.corpora)})"
            )
        if keeps_router(mask.stand_in):
            raise PluginError(
                f"builder {self._cell.method.builder.name!r} asks for a profile under constants or"
                " mapped experts, where a token's choices are not the experts that compute it"
            )
        name = mask.content_hash
        if (name, corpus) not in self._asked.profiled:
            self._afford(self._tokens[corpus], f"a profile on {corpus}")
            self._asked.profiled.add((name, corpus))
        plan, store = self._session.plan, self._session.store
        keys = {
            each.identity: plan.masked_statistic_key(
                self._session.model, self._cell, corpus, each, name, self._sequences
            )
            for each in self._needs
        }
        missing = [each for each in self._needs if not store.has_statistic(keys[each.identity])]
        if missing:
            self._collect(corpus, mask, missing, keys)
        return profile_of(self._session.model, store, self._cell, corpus, keys, store.read_samples)

    def _collect(
        self,
        corpus: str,
        mask: ExpertMask,
        statistics: Sequence[Statistic],
        keys: Mapping[str, Key],
    ) -> None:
        self._session.progress.stage(f"mask {self._cell.label}: profile on {corpus}")
        kept = ExpertMask(frozen(mask.keep), stand_in=mask.stand_in)
        router = self._cell.budget.router
        with contextlib.closing(
            self._passes.profile(corpus, self._sequences, kept, router, statistics)
        ) as collected:
            for each in statistics:
                identity = each.identity
                sums = collected.sums.get(identity, {})
                self._session.store.write_statistic(
                    keys[identity],
                    corpus_profile(each, sums, collected.tokens),
                    sums,
                    collected.samples.get(identity, {}),
                )


class Probes:
    """The probes of one model's searches, and what they cost."""

    def __init__(self, session: ModelSession) -> None:
        """The searches share what can be shared."""
        self._session = session
        self._passes = ProbePasses(session)
        self._made: dict[CellKey, CellProbe] = {}

    def probe(self, cell: Cell) -> CellProbe:
        """A fresh probe, which has spent nothing."""
        self._made[cell.key] = CellProbe(self._session, self._passes, cell)
        return self._made[cell.key]

    def cost(self, cell: Cell) -> SearchCost | None:
        """What a cell's last search has cost; None where there was none."""
        return self._made[cell.key].cost if cell.key in self._made else None

    def note(self, cell: Cell) -> str:
        """What a reader must know of a cell's last search; empty where there is nothing."""
        return self._made[cell.key].note if cell.key in self._made else ""
