"""Texts: whether every record is one, how many there are, and which of them stand there twice."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from mbench.core.admission import Finding
from mbench.core.errors import CorpusError, PluginError
from mbench.core.suite import PerplexityTask
from mbench.core.suite_inputs import CorpusSpec
from mbench.plan.admission.check import Check, RefusedElsewhere
from mbench.plan.fact_keys import admission_key
from mbench.plan.plan import Plan
from mbench.storage.text_files.conversations import Conversation
from mbench.storage.texts import Text

NOTED = 0.01
"""Share of a text's characters from which on repeated documents are worth a note."""

LOOKED_AT = 2**28
"""Characters of a text that are looked at, if no more than its first windows are read of it."""


@dataclass(frozen=True)
class _Look:
    """What reading a text found."""

    nulls: int
    """Records that are skipped."""
    digests: np.ndarray
    """uint64, of each document without the white space around it; 0 for a blank one."""
    characters: np.ndarray
    """int64, of each document; of a conversation, those of all messages."""
    whole: bool
    """Whether it was read to its end."""
    turns: np.ndarray | None = None
    """int64, messages of each conversation; None: of texts."""

    @property
    def documents(self) -> int:
        return len(self.digests)

    @property
    def kind(self) -> str:
        """What its documents are called."""
        return "document" if self.turns is None else "conversation"

    def of(self, count: int, total: int | None = None) -> str:
        """E.g. `2 of 7 documents`."""
        among = f"{count:,} of {total:,}" if total is not None else f"{count:,}"
        return f"{among} {self.kind}{'s' * ((total or count) != 1)}"

    @property
    def blank(self) -> int:
        return int((self.digests == 0).sum())

    def repeated(self, among: np.ndarray) -> tuple[int, float]:
        """How many documents are `among` others that are not blank, and their share of the text."""
        hits = np.isin(self.digests, among) & (self.digests != 0)
        return int(hits.sum()), self._share(hits)

    def copies(self) -> tuple[int, float]:
        """How many documents stand somewhere before, and their share of the text."""
        hits = np.ones(self.documents, dtype=bool)
        hits[np.unique(self.digests, return_index=True)[1]] = False
        hits &= self.digests != 0
        return int(hits.sum()), self._share(hits)

    def _share(self, documents: np.ndarray) -> float:
        return float(self.characters[documents].sum() / max(1, self.characters.sum()))


def text_checks(plan: Plan) -> Iterator[Check]:
    """Look through the texts that the plan uses; each is read once."""
    look = cache(_look)
    corpora = plan.texts_used()
    asked = _sequences_asked(plan)
    held_out = {task.name: task.text for task in plan.tasks if task.text is not None}
    identities = {text: text.identity() for text in [*corpora.values(), *held_out.values()]}
    for name, text in corpora.items():
        corpus = plan.suite.corpora[name]
        assert isinstance(corpus, CorpusSpec)
        inputs = {"text": identities[text], "packing": corpus.packing, "of": asked[name]}
        key = admission_key(plan.code, text.name, inputs)
        yield Check(partial(_corpus, look, name, text, corpus.packing, asked[name]), key)
    for name, text in held_out.items():
        task = plan.suite.perplexity[name]
        settings = task.model_dump(mode="json", exclude={"source", "expect_tokens"})
        key = admission_key(plan.code, text.name, {"text": identities[text], **settings})
        yield Check(partial(_held_out, look, name, text, task), key)
        if not corpora:
            continue
        both = {"text": identities[text], "corpora": {c: identities[corpora[c]] for c in corpora}}
        key = admission_key(plan.code, f"{text.name} beside the corpora", both)
        yield Check(partial(_leaks, look, name, text, task, corpora), key)


def _sequences_asked(plan: Plan) -> dict[str, int]:
    """The most sequences that a used corpus takes of each text."""
    used = {corpus for cell in plan.cells for corpus in cell.method.corpora}
    asked: dict[str, int] = {}
    for part in (part for name in used for part in plan.corpora[name].parts):
        asked[part.name] = max(part.spec.sequences, asked.get(part.name, 0))
    return asked


_Looker = Callable[[Text, "int | None"], _Look]


def _corpus(look: _Looker, name: str, text: Text, packing: str, asked: int) -> Iterator[Finding]:
    tell = partial(Finding, "corpora", name)
    try:
        found = look(text, None)
    except (CorpusError, PluginError) as error:
        yield tell("documents", str(error).removeprefix(f"{text.name}: "), "refused")
        return
    joined = packing == "contiguous" and found.turns is None
    blank = "they count where documents are joined" if joined else "they are left out"
    yield from _amounts(found, text, tell, blank)
    written, kind = found.documents - found.blank, found.kind
    if packing != "contiguous" and written == 1:
        words = f"there is one {kind}: `seed` changes nothing, every seed gives the same sequences"
        yield tell("seed", words, "note")
    elif packing == "document" and written == asked:
        yield tell("seed", f"every {kind} is taken: `seed` changes their order alone", "note")


def _held_out(look: _Looker, name: str, text: Text, spec: PerplexityTask) -> Iterator[Finding]:
    tell = partial(Finding, "perplexity", name)
    try:
        found = look(text, _enough(spec))
    except (CorpusError, PluginError) as error:
        yield tell("documents", str(error).removeprefix(f"{text.name}: "), "refused")
        return
    alone = spec.protocol == "document"
    blank = "nothing of them is scored" if alone else "they count where documents are joined"
    yield from _amounts(found, text, tell, blank)


def _leaks(
    look: _Looker, name: str, text: Text, spec: PerplexityTask, corpora: Mapping[str, Text]
) -> Iterator[Finding]:
    tell = partial(Finding, "perplexity", name, "held out")
    try:
        found = look(text, _enough(spec))
        read = {corpus: look(other, None) for corpus, other in corpora.items()}
    except (CorpusError, PluginError):
        raise RefusedElsewhere from None
    common = {corpus: found.repeated(among=other.digests) for corpus, other in read.items()}
    for corpus, (count, share) in common.items():
        if count:
            words = (
                f"{found.of(count, found.documents)} are also in the corpus {corpus} ({share:.1%})"
            )
            leak = share >= NOTED
            words += ": it is calibrated on what it is tested with" * leak
            yield tell(words, "note" if leak else "fine")
    if not any(count for count, _ in common.values()):
        one = found.documents == 1
        words = "its one document" if one else f"none of {found.of(found.documents)}"
        yield tell(f"{words} is {'not ' * one}in a corpus (whole documents are compared)")


def _amounts(
    found: _Look, text: Text, tell: Callable[..., Finding], blank: str
) -> Iterator[Finding]:
    for seems in sorted({file.seems for file in text.files if file.seems}):
        words = f"a file named like plain text seems to be {seems}: it is read as one document"
        yield tell("format", words, "note")
    whole = "" if found.whole else "; no more was looked at, as only the first windows are read"
    characters = f"{found.characters.sum():,} characters"
    if not found.documents - found.blank:
        yield tell("documents", f"every {found.kind} of the source is empty", "refused")
        return
    turns = ""
    if found.turns is not None:
        turns = f", {_spread(found.turns[found.digests != 0])} turns each"
    yield tell("documents", f"{found.of(found.documents)}{turns}, {characters}{whole}")
    if found.nulls:
        records = found.documents + found.nulls
        words = f"{found.nulls:,} of {records:,} records are null and skipped (`nulls: skip`)"
        yield tell("nulls", words, "note")
    if found.blank:
        yield tell("blank", f"{found.of(found.blank, found.documents)} are blank: {blank}")
    copies, share = found.copies()
    if copies:
        words = (
            f"{found.of(copies, found.documents)} are copies of others ({share:.1%} of the text)"
        )
        yield tell("copies", words, "note" if share >= NOTED else "fine")


def _spread(numbers: np.ndarray) -> str:
    least, middle, most = numbers.min(), np.median(numbers), numbers.max()
    return f"{least:,}" if least == most else f"{least:,} to {most:,} (median {middle:,.0f})"


def _enough(spec: PerplexityTask) -> int | None:
    """Characters after which no window follows that is read; None: the end of the text."""
    if spec.max_windows is None:
        return None
    return max(LOOKED_AT, 64 * spec.max_windows * spec.window)


def _look(text: Text, most: int | None) -> _Look:
    """Read a text, or at least its first `most` characters."""
    nulls = read = 0
    digests, characters, turns = array("Q"), array("q"), array("q")
    whole, of_texts = True, text.source.messages is None
    for record in text.records() if of_texts else text.conversations():
        if record is None:
            nulls += 1
            continue
        if most is not None and read >= most:
            whole = False
            break
        if isinstance(record, Conversation):
            turns.append(record.turns)
            parts = [] if record.blank else record.contents
            # No text has what stands between, so that none is taken for several messages.
            digests.append(_digest("\0".join(parts)))
        else:
            parts = list(record)
            digests.append(_digest("".join(parts).strip()))
        characters.append(sum(map(len, parts)))
        read += characters[-1]
    return _Look(
        nulls,
        np.array(digests, np.uint64),
        np.array(characters, np.int64),
        whole,
        None if of_texts else np.array(turns, np.int64),
    )


def _digest(text: str) -> int:
    """Like that of no other document in practice; 0 for none."""
    if not text:
        return 0
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
