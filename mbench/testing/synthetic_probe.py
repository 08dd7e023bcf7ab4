"""A probe on a synthetic model: it counts, limits and remembers as the real one does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from mbench.core.errors import SearchLimit
from mbench.core.interfaces import ExpertMask, Profile, RouterMode, Statistic
from mbench.core.search import Probe
from mbench.moe.mask import masked
from mbench.testing.failures import Broken
from mbench.testing.synthetic import SyntheticModel

SEQUENCES = 2
"""Of each corpus that masks are tried on."""


class SyntheticProbe(Probe):
    """Losses of a masked synthetic model, which has no head: how far its layers' outputs are off.

    A loss is 1 plus the mean over layers of the relative squared error, an agreement e to the
    power of minus that error.
    """

    def __init__(
        self,
        model: SyntheticModel,
        corpora: Sequence[str],
        *,
        masks: int,
        statistics: Sequence[Statistic] = (),
        router: RouterMode = "sliced",
    ) -> None:
        """Allow for so many new `masks`; `statistics` are those that `profile` collects."""
        self.corpora = tuple(corpora)
        self._model, self._statistics, self._router = model, statistics, router
        self._texts = {name: model.corpus(name)[:SEQUENCES] for name in self.corpora}
        self.tokens_per_mask = max(1, sum(text.tokens for text in self._texts.values()))
        self._limit, self._spent = masks * self.tokens_per_mask, 0
        self._errors: dict[str, np.ndarray] = {}
        self._profiles: dict[tuple[str, str], Profile] = {}
        self._full = self._outputs()
        self.asked: set[str] = set()
        """Content of the masks that were asked for."""

    @property
    def limit(self) -> int:  # type: ignore[override]
        """Most forward tokens the search may spend."""
        return self._limit

    @property
    def spent(self) -> int:  # type: ignore[override]
        """Forward tokens spent so far."""
        return self._spent

    def losses(self, masks: Sequence[ExpertMask]) -> np.ndarray:
        """Return 1 plus the error, float64 [masks, corpora]."""
        losses: np.ndarray = 1 + self._tried(masks)
        return losses

    def agreements(self, masks: Sequence[ExpertMask]) -> np.ndarray:
        """Return the agreement, float64 [masks, corpora]."""
        agreements: np.ndarray = np.exp(-self._tried(masks))
        return agreements

    def profile(self, mask: ExpertMask, corpus: str) -> Profile:
        """Return the statistics under a mask."""
        key = mask.content_hash, corpus
        if key not in self._profiles:
            self._spend(self._texts[corpus].tokens)
            with self._under(mask):
                self._profiles[key] = self._model.profile(
                    self._statistics, corpus, router=self._router, again=True
                )
        return self._profiles[key]

    def loss_of(self, mask: ExpertMask) -> np.ndarray:
        """The loss of a mask, float64 [corpora], whatever is left."""
        spent, self._spent = self._spent, 0
        try:
            loss: np.ndarray = self.losses([mask])[0]
        finally:
            self._spent = spent
        return loss

    @contextlib.contextmanager
    def _under(self, mask: ExpertMask) -> Iterator[None]:
        """Run the model under a mask; raises `Broken` for one that no model can have."""
        shape = (self._model.size.layers, self._model.size.experts)
        keep = getattr(mask, "keep", None)
        fits = isinstance(keep, np.ndarray) and keep.shape == shape and keep.dtype == np.bool_
        if not isinstance(mask, ExpertMask) or not fits:
            raise Broken(
                "search", f"it asks its probe for what is no mask of bool {shape}: {mask!r}"
            )
        if not mask.keep.any(axis=1).all():
            raise Broken("search", "it asks its probe for a mask that keeps no expert in a layer")
        with masked(self._model.layers, mask, self._router):
            yield

    def _spend(self, tokens: int) -> None:
        if self.spent + tokens > self.limit:
            left = self.limit - self.spent
            raise SearchLimit(f"{tokens} forward tokens were asked for, and {left} are left")
        self._spent += tokens

    def _tried(self, masks: Sequence[ExpertMask]) -> np.ndarray:
        new = {mask.content_hash: mask for mask in masks if mask.content_hash not in self._errors}
        self._spend(len(new) * self.tokens_per_mask)
        self.asked |= new.keys()
        for key, mask in new.items():
            with self._under(mask):
                found = self._outputs()
            self._errors[key] = np.array(
                [_error(some, full) for some, full in zip(found, self._full, strict=True)]
            )
        rows = [self._errors[mask.content_hash] for mask in masks]
        return np.array(rows).reshape(len(rows), len(self.corpora))

    def _outputs(self) -> list[list[torch.Tensor]]:
        """By corpus and layer, the outputs of the tokens that are no padding, [T, H]."""
        texts = list(self._texts.values())
        if not texts:
            return []
        ids = torch.from_numpy(np.concatenate([text.ids for text in texts]))
        with torch.no_grad():
            outputs = self._model.model(input_ids=ids)
        found = []
        for number, text in enumerate(texts):
            inside = torch.arange(ids.shape[1]) < torch.from_numpy(text.lengths)[:, None]
            rows = slice(number * SEQUENCES, (number + 1) * SEQUENCES)
            found.append([each[rows][inside].double() for each in outputs])
        return found


def _error(found: list[torch.Tensor], full: list[torch.Tensor]) -> float:
    """Mean over layers of the relative squared error."""
    parts = [
        float((some - whole).square().sum() / whole.square().sum())
        for some, whole in zip(found, full, strict=True)
    ]
    return sum(parts) / len(parts)
