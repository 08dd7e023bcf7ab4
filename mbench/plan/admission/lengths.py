"""Calibration sequences and perplexity windows on each model: how long, and where BOS stands.

Texts are tokenised here as a run would do it, so that one that is too short is refused at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mbench.core.admission import Finding
from mbench.core.errors import CorpusError, MbenchError, PluginError
from mbench.core.suite import PerplexityTask
from mbench.core.suite_inputs import CorpusSpec
from mbench.moe.corpus import Corpus
from mbench.plan.admission.check import Check, RefusedElsewhere, keep_size
from mbench.plan.admission.models import model_inputs
from mbench.plan.fact_keys import admission_key
from mbench.plan.models import PlannedModel
from mbench.plan.plan import Plan
from mbench.plan.tasks import PlannedTask, TaskSize
from mbench.storage.texts import Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mbench.evaluate.windows import Windows
    from mbench.moe.calibration import TokenSequences

MUCH_LOST = 0.1
"""Share of the tokens of conversations that is worth a note where it is cut off."""


def sequence_checks(plan: Plan) -> Iterator[Check]:
    """Every corpus on every model whose methods look at it."""
    for model in _present(plan):
        used = {corpus for cell in plan.cells_of(model.name) for corpus in cell.statistics}
        for name, corpus in plan.corpora.items():
            if name not in used:
                continue
            parts = [
                {
                    "name": part.name,
                    "text": part.text.identity(),
                    **part.spec.model_dump(mode="json", exclude={"source"}),
                }
                for part in corpus.parts
            ]
            inputs = {**model_inputs(model), "corpus": name, "parts": parts}
            key = admission_key(plan.code, f"{name} on {model.name}", inputs)
            yield Check(partial(_sequences, model, corpus), key)


def window_checks(plan: Plan) -> Iterator[Check]:
    """Every perplexity text on every model."""
    for task in plan.tasks:
        if not isinstance(task.spec, PerplexityTask):
            continue
        for model in _present(plan):
            inputs: dict[str, Any] = {**model_inputs(model), "task": dict(task.fingerprint)}
            inputs["perplexity"] = task.name
            key = admission_key(plan.code, f"{task.name} on {model.name}", inputs)
            size = plan.task_size_key(model, task)
            keep = partial(keep_size, plan.inputs.store, size)
            yield Check(partial(_windows, model, task, keep), key, also=size)


def _present(plan: Plan) -> list[PlannedModel]:
    """The models whose files are here."""
    return [model for model in plan.models if model.files_available]


def _sequences(model: PlannedModel, corpus: Corpus) -> Iterator[Finding]:
    from mbench.moe.calibration import refuse_too_long
    from mbench.moe.tokenizer import refuse_unknown

    name, at = corpus.name, f"corpora.{corpus.name}"
    tokenizer = _tokenizer(model)
    try:
        refuse_too_long(at, corpus.length, model.facts.positions)
        parts = corpus.cut_parts(tokenizer)
        cut = corpus.joined(parts)
        refuse_unknown(at, cut.ids, model.facts.vocabulary)
    except MbenchError as error:
        why = _why_not(error, at, [part.text for part in corpus.parts])
        yield Finding("corpora", name, "sequences", why, "refused", model.name)
        return
    count = len(cut.ids)
    bos = tokenizer.bos_token_id
    begin = 0 if bos is None else cut.beginning_with(bos)
    words = f"{count} of up to {int(cut.lengths.max())} tokens, {_beginning(begin)}"
    if len(corpus.parts) > 1:
        words += ": " + ", ".join(f"{part.spec.sequences} of {part.name}" for part in corpus.parts)
    yield Finding("corpora", name, "sequences", words, model=model.name)
    if cut.drawn_from == count:
        words = f"the text has {count} sequences and all are taken: `seed` changes nothing"
        yield Finding("corpora", name, "seed", words, "note", model.name)
    for part, found in zip(corpus.parts, parts, strict=True):
        if found.conversations is not None:
            of = "" if len(parts) == 1 else f" of {part.name}"
            tell = partial(Finding, "corpora", name, model=model.name)
            yield from _conversations(tell, of, part.spec, found, tokenizer)


def _conversations(
    tell: Callable[..., Finding],
    of: str,
    spec: CorpusSpec,
    cut: TokenSequences,
    tokenizer: PreTrainedTokenizerBase,
) -> Iterator[Finding]:
    """How long conversations are and what is cut off, where BOS stands, what was typed in them."""
    from mbench.moe.tokenizer import adds_bos

    found = cut.conversations
    assert found is not None
    count, lengths = len(found.lengths), found.lengths
    words = (
        f"{count:,} of {np.median(lengths):,.0f} tokens in the median, {lengths.max():,} at most"
    )
    lost = 0.0
    if spec.packing == "document":
        over = np.maximum(lengths - spec.length, 0)
        lost = float(over.sum() / lengths.sum())
        words += f"; {(over > 0).sum():,} are cut at {spec.length:,}, {lost:.1%} of all tokens lost"
    else:
        words += f"; joined, {found.inside:,} of {len(cut.ids):,} sequences begin inside one"
    yield tell(f"conversations{of}", words, level="note" if lost >= MUCH_LOST else "fine")
    begin = found.begin_with_bos
    words = f"{begin or 'none'} of {count:,} conversations begin with BOS"
    few = spec.bos is None and begin < count and adds_bos(tokenizer)
    if few:
        words += ", as the chat template has it; other texts of this tokenizer do"
        words += " (`bos: document`: all)"
    yield tell(f"BOS{of}", words, level="note" if few else "fine")
    if found.typed:
        words = (
            f"in {found.typed:,} of {count:,} conversations somebody typed a special token, e.g."
        )
        words += f" {found.typed_token!r}: the model reads it as one"
        yield tell(f"typed tokens{of}", words, level="note")
    if found.unread:
        words = f"the model's chat template reads no {', '.join(found.unread)}: it changes nothing"
        yield tell(f"options{of}", words, level="note")
    yield tell(f"example{of}", f"begins {found.example!r}")


def _tokenizer(model: PlannedModel) -> PreTrainedTokenizerBase:
    """Raises `RefusedElsewhere` where the model has none that fits."""
    try:
        return model.tokenizer
    except MbenchError:
        raise RefusedElsewhere from None


def _why_not(error: MbenchError, name: str, texts: Sequence[Text]) -> str:
    """Why texts do not do; raises `RefusedElsewhere` where one of them is none."""
    for text in texts:
        try:
            documents = any(_written(text))
        except (CorpusError, PluginError):
            documents = False
        if not documents:
            raise RefusedElsewhere
    return str(error).removeprefix(f"{name}: ")


def _written(text: Text) -> list[bool]:
    """Of every record, whether something is written in it; raises where one is no text."""
    if text.source.messages is None:
        return [bool("".join(document).strip()) for document in text.in_parts()]
    return [not each.blank for each in text.conversations() if each is not None]


def _windows(
    model: PlannedModel, task: PlannedTask, keep: Callable[[TaskSize], None]
) -> Iterator[Finding]:
    from mbench.evaluate.perplexity import refuse_too_long
    from mbench.evaluate.windows import windows_of
    from mbench.moe.tokenizer import adds_bos, refuse_unknown

    assert isinstance(task.spec, PerplexityTask)
    assert task.text is not None
    tokenizer = _tokenizer(model)
    try:
        refuse_too_long(task.name, task.spec, model.facts.positions)
        found = windows_of(task.name, task.spec, task.text.in_parts(), tokenizer)
        for read in found.texts:
            refuse_unknown(f"perplexity {task.name!r}", read.ids, model.facts.vocabulary)
    except MbenchError as error:
        words = _why_not(error, task.text.name, [task.text])
        yield Finding("perplexity", task.name, "windows", words, "refused", model.name)
        return
    count, begin = len(found.windows), found.begin_with_bos
    keep(TaskSize(len(found.rows), sum(map(found.read, found.windows)), 0))
    # The suite's `window` counts the last token, too, but where windows are so many predictions.
    longest = max(map(found.read, found.windows)) + (task.spec.protocol != "document")
    words = f"{count} of up to {longest} tokens {_documents(found)}"
    words += f", {_beginning(begin)}"
    few = begin < count and task.spec.bos is None and adds_bos(tokenizer)
    if few:
        words += f", as published figures of {task.spec.protocol} have it (`bos: window`: all)"
    yield Finding("perplexity", task.name, "windows", words, "note" if few else "fine", model.name)


def _beginning(count: int) -> str:
    """How many begin with BOS."""
    return f"{count or 'none'} begin{'s' if count < 2 else ''} with BOS"


def _documents(found: Windows) -> str:
    """How many documents the windows lie in, and what they are."""
    kinds = {
        "records": "records",
        "wikitext": "articles of WikiText, known by their headings",
        "whole": "the whole text",
    }
    plural = "s" if found.documents > 1 else ""
    return f"from {found.documents} document{plural} ({kinds[found.kind]})"
