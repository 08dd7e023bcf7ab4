"""Corpora that are mixed of others: their counts, keys and sequences, and what is refused."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from helpers.tiny_suite import SUITE, go, plan_of
from mbench.core.errors import MbenchError
from mbench.moe.corpus import interleaved
from mbench.plan.mixes import largest_remainder
from mbench.run.provenance import gather

MIXED = SUITE.replace("calibration:", "  both: {mix: {bible: 4, wiki: 8}}\ncalibration:").replace(
    "reap: {corpora: [bible]}\n  same", "reap: {corpora: [both]}\n  same"
)


def corpus(tmp_path, store, spec: str):
    return plan_of(tmp_path, store, MIXED.replace("{mix: {bible: 4, wiki: 8}}", spec)).corpora[
        "both"
    ]


@pytest.mark.parametrize("counts", [(8, 4), (32, 16, 16), (1, 1, 30), (7, 5, 3, 2), (5,)])
def test_every_run_of_sequences_holds_the_parts_in_proportion(counts):
    order = interleaved(counts)
    assert sorted(order) == list(range(sum(counts)))
    part = np.repeat(np.arange(len(counts)), counts)[order]
    total = sum(counts)
    for number, count in enumerate(counts):
        own = order[part == number]
        assert (np.diff(own) > 0).all()  # its own order stays
        for length in range(1, total + 1):
            for start in range(total - length + 1):
                share = Fraction(length * count, total)
                found = int((part[start : start + length] == number).sum())
                assert abs(found - share) < (1 if len(counts) < 3 else 2)


def test_counts_of_weights_are_those_of_hamilton():
    assert largest_remainder(64, {"a": 0.5, "b": 0.25, "c": 0.25}) == {"a": 32, "b": 16, "c": 16}
    assert largest_remainder(10, {"a": 1, "b": 1, "c": 1}) == {"a": 4, "b": 3, "c": 3}
    # By hand: quotas of 21 seats are 8.33, 9.17 and 3.5.
    assert largest_remainder(21, {"a": 0.4, "b": 0.44, "c": 0.168}) == {"a": 8, "b": 9, "c": 4}
    # Decimals as they are written: in binary, 0.1 and 0.7 and 0.2 give others.
    assert largest_remainder(10, {"a": 0.1, "b": 0.7, "c": 0.2}) == {"a": 1, "b": 7, "c": 2}


def test_a_mix_has_the_sequences_of_its_parts(tmp_path, store):
    plan = plan_of(tmp_path, store, MIXED)
    (model,) = plan.models
    mixed = plan.corpora["both"].cut(model.tokenizer)
    alone = {
        name: plan_of(tmp_path, store, set_values=[f"corpora.{name}.sequences={count}"])
        .corpora[name]
        .cut(model.tokenizer)
        for name, count in (("bible", 4), ("wiki", 8))
    }
    pattern = "wbwwbwwbwwbw"  # places 1/8, 3/8, ... of bible among 1/16, 3/16, ... of wiki
    ours = {"b": iter(alone["bible"].ids), "w": iter(alone["wiki"].ids)}
    assert len(mixed.ids) == 12
    for row, letter in zip(mixed.ids, pattern, strict=True):
        assert (row == next(ours[letter])).all()


def test_keys_of_a_mix_are_those_of_its_content(tmp_path, store):
    def statistics(spec: str, of: str = "reap", **narrowing) -> set[str]:
        text = MIXED.replace("{mix: {bible: 4, wiki: 8}}", spec)
        plan = plan_of(tmp_path, store, text, **narrowing)
        cells = (cell for cell in plan.cells if cell.method.name == of)
        return {j.key.digest for cell in cells for jobs in cell.statistics.values() for j in jobs}

    first = statistics("{mix: {bible: 4, wiki: 8}}")
    assert statistics("{mix: {bible: 1, wiki: 2}, sequences: 12}") == first
    assert statistics("{mix: {bible: 0.25, wiki: 0.5}, sequences: 12, length: 32}") == first
    assert statistics("{mix: {bible: 5, wiki: 7}}") != first
    assert statistics("{mix: {wiki: 8, bible: 4}}") != first  # another order
    assert statistics("{mix: {bible: 4, wiki: 8}, length: 16}") != first
    wiki = ["corpora.wiki.sequences=9", "corpora.wiki.join=' '"]
    assert statistics("{mix: {bible: 4, wiki: 8}}", set_values=wiki[:1]) == first
    assert statistics("{mix: {bible: 4, wiki: 8}}", set_values=wiki[1:]) != first
    # A mix of one part is that corpus.
    assert statistics("{mix: {bible: 6}}") == statistics("{mix: {bible: 6}}", of="same-as-reap")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{mix: {bible: 4, wikki: 8}}", ":9:26: unknown corpus 'wikki'; did you mean 'wiki'?"),
        ("{mix: {bible: 4, both: 8}}", ":9:26: 'both' is a mix: list its parts instead"),
        ("{mix: {bible: 0, wiki: 8}}", ":9:16: corpora.both.mix.bible: input should be greater"),
        ("{mix: {bible: 0.5, wiki: 8}}", ":9:16: 0.5 is no number of sequences; for weights"),
        ("{mix: {bible: 0.01, wiki: 1}, sequences: 9}", ":9:16: the weight 0.01 gives none of 9"),
        ("{mix: {}}", ":9:10: corpora.both.mix: give at least one"),
        ("{mix: {bible: 4}, seed: 1}", ":9:27: unknown key 'seed' (valid: length, mix, sequences)"),
        ("{mix: {bible: 4}, lenght: 1}", "unknown key 'lenght'; did you mean 'length'?"),
        ("{mix: {bible: 4, long: 8}}", ":9:10: its parts have sequences of different lengths"),
        (f"{{mix: {{bible: 4, wiki: {10**9}}}}}", "are more than the 268435456 that are kept"),
        ("{source: {plugin: wiki}, length: 3, sequence: 2}", "unknown key 'sequence'; did you"),
    ],
)
def test_a_wrong_mix_is_refused_at_its_line(tmp_path, store, spec, message):
    text = MIXED.replace("{mix: {bible: 4, wiki: 8}}", spec).replace(
        "calibration:",
        "  long: {source: {plugin: wiki, split: calibration}, sequences: 6, length: 64}\n"
        "calibration:",
    )
    with pytest.raises(MbenchError) as caught:
        plan_of(tmp_path, store, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_text_that_is_too_short_for_its_part_is_named(tmp_path, store):
    found = corpus(tmp_path, store, "{mix: {bible: 300000, wiki: 8}}")
    tokenizer = plan_of(tmp_path, store).models[0].tokenizer
    with pytest.raises(MbenchError, match=r"corpora\.bible: the suite asks for 300000 sequences"):
        found.cut(tokenizer)


def test_a_run_profiles_a_mix_and_records_its_parts(tmp_path, store):
    plan = plan_of(tmp_path, store, MIXED, methods=["reap"], retain=[0.5], limit=1)
    outcome, _ = go(plan, store)
    assert outcome.profiles["demo", "both"].tokens == 12 * 32
    mix = gather(plan, outcome, tmp_path / "suite.yaml", ["mbench"], []).mixes["both"]
    assert mix.label == "4 bible + 8 wiki"
    assert [(part.sequences, part.length) for part in mix.parts.values()] == [(4, 32), (8, 32)]
