"""Calibration corpora that are mixed of others: which parts, and how many sequences of each."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from mbench.core.chat import ChatSpec
from mbench.core.suite import Suite
from mbench.core.suite_inputs import MOST_CALIBRATION_TOKENS, CorpusSpec, MixSpec
from mbench.moe.corpus import Corpus, CorpusPart
from mbench.plan.yaml_source import Place, YamlSource
from mbench.storage.texts import Text


def texts_of(suite: Suite) -> dict[str, CorpusSpec]:
    """The suite's corpora that are cut from one text, by name."""
    plain = {name: spec for name, spec in suite.corpora.items() if isinstance(spec, CorpusSpec)}
    return {name: _of_conversations(spec, suite.chat) for name, spec in plain.items()}


def _of_conversations(spec: CorpusSpec, usual: ChatSpec | None) -> CorpusSpec:
    """With all that decides how conversations are rendered and joined; texts stay as they are."""
    if spec.source.messages is None:
        return spec
    chat = spec.chat or usual
    # What is about few-shot tasks alone enters no key of a corpus.
    chat = ChatSpec() if chat is None or not chat.template else chat
    chat = chat.model_copy(update={"multiturn": None})
    join = spec.join if "join" in spec.model_fields_set else ""
    return spec.model_copy(update={"chat": chat, "join": join})


def find_corpora(suite: Suite, texts: Mapping[str, Text], source: YamlSource) -> dict[str, Corpus]:
    """The suite's corpora with their parts; `texts` are those of `texts_of`.

    Raises `SuiteError` at the line of a mix whose parts are unknown, mixes themselves, of different
    lengths, without a sequence, or too many for the memory.
    """
    plain = texts_of(suite)
    corpora = {}
    for name, spec in suite.corpora.items():
        specs = _mixed(name, spec, plain, suite, source) if isinstance(spec, MixSpec) else {}
        parts = specs or {name: plain[name]}
        corpora[name] = Corpus(
            name, tuple(CorpusPart(part, texts[part], cut) for part, cut in parts.items())
        )
    return corpora


def _mixed(
    name: str, spec: MixSpec, plain: Mapping[str, CorpusSpec], suite: Suite, source: YamlSource
) -> dict[str, CorpusSpec]:
    """Part -> how it is cut in this mix."""
    place = ("corpora", name, "mix")
    for part in spec.mix:
        if part in plain:
            continue
        if part in suite.corpora:
            raise source.error((*place, part), f"{part!r} is a mix: list its parts instead")
        raise source.unknown((*place, part), "corpus", part, plain)
    lengths = {plain[part].length for part in spec.mix}
    if spec.length is None and len(lengths) > 1:
        each = ", ".join(f"{part} {plain[part].length}" for part in spec.mix)
        raise source.error(
            place, f"its parts have sequences of different lengths ({each}): give one `length`"
        )
    length = spec.length or lengths.pop()
    counts = _counts(spec, place, source)
    if sum(counts.values()) * length > MOST_CALIBRATION_TOKENS:
        raise source.error(
            place,
            f"{sum(counts.values())} sequences of {length} tokens are more than the"
            f" {MOST_CALIBRATION_TOKENS} that are kept in memory",
        )
    return {
        part: plain[part].model_copy(update={"sequences": count, "length": length})
        for part, count in counts.items()
    }


def _counts(spec: MixSpec, place: Place, source: YamlSource) -> dict[str, int]:
    """Sequences of each part."""
    if spec.sequences is None:
        for part, count in spec.mix.items():
            if not count.is_integer():
                problem = f"{count:g} is no number of sequences; for weights give `sequences`, too"
                raise source.error((*place, part), problem)
        return {part: int(count) for part, count in spec.mix.items()}
    counts = largest_remainder(spec.sequences, spec.mix)
    for part, count in counts.items():
        if not count:
            problem = f"the weight {spec.mix[part]:g} gives none of {spec.sequences} sequences"
            raise source.error((*place, part), problem)
    return counts


def largest_remainder(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers that sum to `total`, in proportion to the weights as decimals.

    What rounding down leaves goes to the largest remainders, the earlier first where they are
    equal.
    """
    exact = {name: Fraction(str(weight)) for name, weight in weights.items()}
    shares = {name: total * weight / sum(exact.values()) for name, weight in exact.items()}
    counts = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: counts[name] - shares[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
