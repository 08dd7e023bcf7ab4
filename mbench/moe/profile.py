"""One forward pass over a corpus that collects every statistic asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from mbench.core.errors import MbenchError, PluginError, UnsupportedModel
from mbench.core.interfaces import ExpertMask, RouterMode, Statistic
from mbench.core.stand_ins import keeps_router
from mbench.moe.accumulate import Accumulator
from mbench.moe.adapter import MoELayer
from mbench.moe.calibration import TokenSequences, refuse_too_long
from mbench.moe.config import turned_by_longest
from mbench.moe.corpus import Corpus
from mbench.moe.experts import experts_function
from mbench.moe.load import LoadedModel
from mbench.moe.mask import masked
from mbench.moe.record import Recorder
from mbench.moe.residual import ResidualStreams
from mbench.moe.tokenizer import refuse_unknown
from mbench.storage.sample_files import Sample, SampleFiles, scratch_sample


@dataclass(frozen=True)
class Collected:
    """What a pass collected, by the statistics' identities."""

    sums: dict[str, dict[str, np.ndarray]]
    """identity -> array name -> float64 [shards, L, N, ...], [1, L, N, ...] if inspected."""
    samples: Mapping[str, Sample]
    """identity -> array name -> one array [t, ...] per layer, in corpus order, read-only."""
    failures: dict[str, MbenchError]
    """identity -> why a statistic has neither; the pass went on without it."""
    tokens: int
    """That were counted, padding excluded."""

    def close(self) -> None:
        """Remove the samples' files, unless a store has them by now."""
        for sample in self.samples.values():
            sample.discard()


def profile_corpus(
    loaded: LoadedModel,
    corpus: Corpus,
    statistics: Sequence[Statistic],
    *,
    batch_tokens: int,
    shards: int,
    advance: Callable[[int], None] = lambda tokens: None,
    new_sample: Callable[[int | None], SampleFiles] = scratch_sample,
) -> Collected:
    """Cut a corpus as the suite asks and profile the model on it (see `profile_model`).

    Raises `CorpusError` if the text is too short, or sequences longer than the model's positions.
    """
    return profile_model(
        loaded.model,
        loaded.layers,
        cut_corpus(loaded, corpus),
        statistics,
        batch_size=max(1, batch_tokens // corpus.length),
        shards=shards,
        advance=advance,
        new_sample=new_sample,
    )


def cut_corpus(loaded: LoadedModel, corpus: Corpus) -> TokenSequences:
    """Cut a corpus as the suite asks.

    Raises `CorpusError` if the text is too short, or sequences longer than the model's positions.
    """
    name = f"corpora.{corpus.name}"
    refuse_too_long(name, corpus.length, loaded.facts.positions)
    cut = corpus.cut(loaded.tokenizer)
    refuse_unknown(name, cut.ids, loaded.facts.vocabulary)
    return cut


def profile_model(
    model: PreTrainedModel,
    layers: Sequence[MoELayer],
    corpus: TokenSequences,
    statistics: Sequence[Statistic],
    *,
    batch_size: int,
    shards: int = 16,
    advance: Callable[[int], None] = lambda tokens: None,
    mask: ExpertMask | None = None,
    router: RouterMode = "sliced",
    new_sample: Callable[[int | None], SampleFiles] = scratch_sample,
) -> Collected:
    """Run `corpus` through `model` once and return what `statistics` inspected and measured.

    Shards are contiguous groups of sequences, as equal as possible and never more than there are
    sequences. A batch may cross their borders: statistics are shown its tokens shard by shard, so
    that `batch_size` changes only the rounding. Padding is not seen by any statistic. `advance` is
    told the number of tokens done after every batch. Samples go to the files of `new_sample`, which
    is told the number of their tokens where that is known before.

    A statistic that raises or breaks its contract is left out from there on; `failures` says why.
    With a mask, the model runs under it (see `mbench.moe.mask.masked`), and experts keep their
    numbers. Raises `UnsupportedModel` if the model does not call its experts as expected, gives
    values that are not finite, or has a mask under which choices of dropped experts go elsewhere.
    """
    _refuse_unfit(model, corpus, mask)
    count = min(shards, len(corpus.ids))
    shard_of = np.repeat(np.arange(count), [*map(len, np.array_split(corpus.lengths, count))])
    accumulator = Accumulator(layers, statistics, count, corpus.tokens, new_sample)
    # Before the mask, which slices the routers.
    with torch.no_grad():
        accumulator.inspect()
    streams = ResidualStreams(model, layers)
    recorder = Recorder(layers, corpus.tokens, accumulator, streams.of, masked=mask is not None)
    applied = contextlib.nullcontext() if mask is None else masked(layers, mask, router)
    with (
        contextlib.ExitStack() as failing,
        torch.no_grad(),
        applied,
        experts_function(layers, recorder.apply_experts),
        recorder.watch(),
        streams.watch(),
    ):
        failing.callback(accumulator.discard)
        batch_size = 1 if _read_apart(model, corpus) else batch_size
        for start in range(0, len(corpus.ids), batch_size):
            rows = slice(start, start + batch_size)
            tokens = int(corpus.lengths[rows].sum())
            if tokens:
                _forward(model, recorder, corpus[rows], shard_of[rows])
            accumulator.refuse_residual(streams.problem)
            advance(tokens)
            following = start + batch_size
            until = shard_of[following] if following < len(shard_of) else count
            if done := range(shard_of[start], until):
                accumulator.close(done)
        samples = accumulator.finished_samples()
        failing.pop_all()
    return Collected(accumulator.sums(), samples, accumulator.failures, corpus.tokens)


def _refuse_unfit(model: PreTrainedModel, corpus: TokenSequences, mask: ExpertMask | None) -> None:
    """Raise what `profile_model` raises before it begins."""
    if mask is not None and keeps_router(mask.stand_in):
        # Its experts are called with other choices than the router's, some of weight 0.
        raise UnsupportedModel(
            "no statistics are collected under a mask with constants or mapped experts: a token's"
            " choices are not those of the experts that compute it"
        )
    if model.training:
        raise ValueError("a model must be in eval mode to be profiled")
    if not corpus.tokens:
        raise ValueError("there is nothing to profile: the corpus has no tokens")


def inspect_weights(layers: Sequence[MoELayer], statistics: Sequence[Statistic]) -> Collected:
    """Return what `statistics` read from the weights of `layers`, in one shard; no text is read.

    A statistic that looks at text, raises or breaks its contract is left out, as `failures` says.
    """
    accumulator = Accumulator(layers, statistics, 1)
    with torch.no_grad():
        accumulator.inspect()
    failures: dict[str, MbenchError] = {
        statistic.identity: PluginError(
            f"statistic {statistic.name!r} looks at text, but its method looks at none"
        )
        for statistic in statistics
        if statistic.measures()
    }
    failures |= accumulator.failures
    sums = {each: sums for each, sums in accumulator.sums().items() if each not in failures}
    return Collected(sums, {}, failures, tokens=0)


def _read_apart(model: PreTrainedModel, corpus: TokenSequences) -> bool:
    """Whether a sequence would get other rotary angles beside a longer one."""
    longest = int(corpus.lengths.max())
    return bool((corpus.lengths < longest).any()) and turned_by_longest(model.config, longest)


def _forward(
    model: PreTrainedModel, recorder: Recorder, sequences: TokenSequences, shards: np.ndarray
) -> None:
    """One forward call on sequences, which are in these shards."""
    lengths = sequences.lengths
    ids = sequences.ids[:, : lengths.max()]
    inside = np.arange(ids.shape[1]) < lengths[:, None]
    given = {"input_ids": torch.from_numpy(ids)}
    if not inside.all():
        given["attention_mask"] = torch.from_numpy(inside.astype(np.int64))
    given = {name: each.to(model.device, non_blocking=True) for name, each in given.items()}
    with recorder.batch(ids, lengths, shards):
        # The body alone: the head's logits over the vocabulary would be thrown away.
        model.base_model(**given, use_cache=False)
