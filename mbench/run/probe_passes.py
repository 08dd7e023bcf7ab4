"""The forward passes of searches: one model under many masks, over calibration text.

The full model's last hidden states on the text are kept in main memory, [tokens, H], and its
probabilities are computed from them again for every mask, a few positions at a time: they are
never held for all tokens. Where a family's head cannot be run by itself, the whole model runs one
sequence at a time, so that the logits of one sequence are held for the full model and a mask; the
full model then runs again whenever masks are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mbench.core.batch_limit import bands
from mbench.core.errors import PluginError, UnsupportedModel
from mbench.core.interfaces import ExpertMask, RouterMode, Statistic
from mbench.plan.cells import SHARDS
from mbench.run.session import ModelSession

if TYPE_CHECKING:
    import torch

    from mbench.evaluate.lm_head import SplitModel
    from mbench.moe.calibration import TokenSequences
    from mbench.moe.load import LoadedModel
    from mbench.moe.prefix import SharedPrefix
    from mbench.moe.profile import Collected


@dataclass(frozen=True)
class Measured:
    """What one mask gave on one corpus, as means over the predicted tokens."""

    loss: float
    """Negative log-likelihood in nats."""
    agreement: float
    """Sum over the vocabulary of min(p, q), of the full model's probabilities and the mask's."""


@dataclass
class _Prepared:
    """What is kept as long as the model stays loaded."""

    loaded: LoadedModel
    prefix: SharedPrefix
    parts: SplitModel | None
    """None: the head cannot be run by itself."""
    references: dict[tuple[str, int], list[torch.Tensor]] = field(default_factory=dict)
    """(corpus, sequences) -> of each sequence, the full model's last hidden states [length, H]."""


class ProbePasses:
    """The passes of one model, shared by all its searches."""

    def __init__(self, session: ModelSession) -> None:
        """Nothing is loaded or tokenised yet."""
        self._session = session
        self._texts: dict[str, TokenSequences] = {}
        self._ready: _Prepared | None = None

    def text(self, corpus: str, sequences: int) -> TokenSequences:
        """The first sequences of a corpus, as the suite cuts it."""
        from mbench.moe.profile import cut_corpus

        if corpus not in self._texts:
            whole = self._session.plan.corpora[corpus]
            self._texts[corpus] = cut_corpus(self._session.load(), whole)
        return self._texts[corpus][:sequences]

    def measure(
        self, corpus: str, sequences: int, masks: Sequence[ExpertMask], router: RouterMode
    ) -> list[Measured]:
        """Run distinct masks over the text; where memory runs out, again with half the batch.

        Raises `UnsupportedModel` for a mask that the model's router cannot work with, and for
        outputs that are not finite.
        """
        from mbench.moe.config import turned_by_longest
        from mbench.moe.experts import fast_experts

        text = self.text(corpus, sequences)
        ready = self._prepared(text)
        sums = np.zeros((len(masks), 2))
        order = np.argsort(-text.lengths, kind="stable")
        done = 0
        config = ready.loaded.model.config
        alone = ready.parts is None or turned_by_longest(config, int(text.lengths.max()))

        def cut(tokens: int) -> Iterator[np.ndarray]:
            left = order[done:]
            lengths = text.lengths[left].tolist()
            return (left[part] for part in bands(lengths, 1 if alone else tokens))

        def compute(rows: np.ndarray) -> None:
            nonlocal done
            counted = self._session.outcome.forward_tokens
            try:
                found = self._batch(ready, (corpus, sequences), text, rows, masks, router)
            except Exception:
                self._session.advance(counted - self._session.outcome.forward_tokens)
                raise
            sums[:] += found
            done += len(rows)

        limit = self._session.batch_limit(f"trying masks on {corpus}")
        with fast_experts(ready.loaded.layers):
            limit.run(cut, lambda rows: int(text.lengths[rows].max()) * len(rows), compute)
        if not np.isfinite(sums).all():
            name = self._session.model.name
            raise UnsupportedModel(f"the output of {name} under a mask is not finite on {corpus}")
        means = sums / int(_predicted(text).sum())
        return [Measured(float(loss), float(agreement)) for loss, agreement in means]

    def _prepared(self, text: TokenSequences) -> _Prepared:
        import torch

        from mbench.evaluate.lm_head import split
        from mbench.evaluate.perplexity import COMPARED_TOKENS
        from mbench.moe.prefix import SharedPrefix

        loaded = self._session.load()
        if self._ready is None or self._ready.loaded is not loaded:
            ids = torch.from_numpy(text.ids[:1, :COMPARED_TOKENS]).to(loaded.model.device)
            prefix = SharedPrefix(loaded.model, loaded.layers)
            self._ready = _Prepared(loaded, prefix, split(loaded.model, ids))
        return self._ready

    def _batch(
        self,
        ready: _Prepared,
        place: tuple[str, int],
        text: TokenSequences,
        rows: np.ndarray,
        masks: Sequence[ExpertMask],
        router: RouterMode,
    ) -> np.ndarray:
        """float64 [masks, 2], the loss and the agreement summed over the rows' predicted tokens."""
        import torch

        device = ready.loaded.model.device
        lengths = text.lengths[rows]
        # Padding is on the right, where no predicted token sees it.
        ids = torch.from_numpy(text.ids[rows, : lengths.max()]).to(device)
        inside = torch.arange(ids.shape[1] - 1) < torch.from_numpy(_predicted(text)[rows, None])
        predicts = inside.to(device)
        targets = ids[:, 1:][predicts]
        reference = self._reference(ready, place, text, rows, ids)[:, :-1][predicts]
        sums = np.zeros((len(masks), 2))
        tokens = int(lengths.sum())
        for number, output in ready.prefix.run(_forward(ready), ids, masks, router):
            head = ready.parts.head if ready.parts else torch.nn.Identity()
            sums[number] = _compare(head, output[:, :-1][predicts], reference, targets)
            self._session.advance(tokens)
        return sums

    def _reference(
        self,
        ready: _Prepared,
        place: tuple[str, int],
        text: TokenSequences,
        rows: np.ndarray,
        ids: torch.Tensor,
    ) -> torch.Tensor:
        """What the full model gives of a batch, [sequences, length, H or vocabulary]."""
        import torch

        known = ready.references.get(place, [])
        if not known or any(known[row].shape[0] < text.lengths[row] for row in rows):
            with torch.no_grad():
                output = _forward(ready)(ids)
            self._session.advance(int(text.lengths[rows].sum()))
            if ready.parts is None:
                return output
            known = ready.references.setdefault(place, [output[0, :0].cpu()] * len(text.ids))
            for row, states in zip(rows, output, strict=True):
                known[row] = states[: text.lengths[row]].cpu()
        states = [known[row].to(ids.device) for row in rows]
        return torch.nn.utils.rnn.pad_sequence(states, batch_first=True)

    def profile(
        self,
        corpus: str,
        sequences: int,
        mask: ExpertMask,
        router: RouterMode,
        statistics: Sequence[Statistic],
    ) -> Collected:
        """Collect statistics under a mask.

        Raises `PluginError` for one that changes the model, which is then loaded anew, and the
        error of one that fails.
        """
        from mbench.moe.profile import profile_model
        from mbench.moe.unchanged import ModelChanged, unchanged

        text = self.text(corpus, sequences)
        loaded = self._session.load()
        length = text.ids.shape[1]

        def collect(batch_tokens: int) -> Collected:
            return profile_model(
                loaded.model,
                loaded.layers,
                text,
                statistics,
                batch_size=max(1, batch_tokens // length),
                shards=SHARDS,
                advance=self._session.advance,
                mask=mask,
                router=router,
                new_sample=self._session.store.new_sample,
            )

        try:
            with unchanged(loaded.model):
                collected = self._session.within_memory(f"profile on {corpus}", collect, length)
        except ModelChanged as error:
            self._session.unload()
            names = ", ".join(repr(each.name) for each in statistics)
            raise PluginError(f"statistics {names}: {error}") from error
        for failure in collected.failures.values():
            collected.close()
            raise failure
        return collected


def _forward(ready: _Prepared) -> Callable[[torch.Tensor], torch.Tensor]:
    """Token ids to the last hidden states, or to logits where the head cannot be run alone."""
    if ready.parts is None:
        return lambda ids: ready.loaded.model(input_ids=ids, use_cache=False).logits
    body = ready.parts.body
    return lambda ids: body(input_ids=ids, use_cache=False).last_hidden_state


def _predicted(text: TokenSequences) -> np.ndarray:
    """int64 [sequences], the tokens of each that another one comes before."""
    predicted: np.ndarray = np.maximum(text.lengths - 1, 0)
    return predicted


def _compare(
    head: torch.nn.Module, masked: torch.Tensor, full: torch.Tensor, targets: torch.Tensor
) -> tuple[float, float]:
    """The loss and the agreement with the full model, summed over n positions.

    Args:
        head: hidden states [n, H] to logits [n, V].
        masked: [n, H] under the mask.
        full: [n, H] of the full model.
        targets: int64 [n] the token that follows each position.
    """
    import torch

    from mbench.evaluate.lm_head import MOST_LOGITS, softmax_dtype

    loss, agreement = 0.0, 0.0
    vocabulary = next((each.shape[0] for each in head.parameters()), masked.shape[-1])
    size = max(1, MOST_LOGITS // vocabulary)
    with torch.no_grad():
        for at in range(0, len(targets), size):
            part = slice(at, at + size)
            logs = []
            for hidden in (masked, full):
                logits = head(hidden[part])
                logs.append(torch.log_softmax(logits, -1, dtype=softmax_dtype(logits.dtype)))
            loss -= float(logs[0].gather(1, targets[part, None]).double().sum())
            agreement += float(torch.minimum(*logs).exp_().sum(dim=-1).double().sum())
    return loss, agreement
