"""Texts are read before anything runs: what is no text is refused, what a reader must know told."""

from __future__ import annotations

import json

import pytest

from helpers.command import call
from helpers.tiny_suite import go, plan_of
from mbench.plan.admission.admit import admit, refuse
from mbench.plan.yaml_source import YamlSource
from mbench.storage.store import Store

SUITE = """\
name: tiny
models:
  demo: {plugin: demo, dtype: float32}
retain: [0.5]
corpora:
  one: {source: {files: [ONE]}, sequences: 2, length: 8}
methods:
  reap: {corpora: [one]}
perplexity:
  ppl:
    {source: {files: [TWO]}, protocol: gptq, window: 8, max_windows: 2}
"""

LONG = [f"document {number} has words enough for one sequence" for number in range(20)]


@pytest.fixture
def found(tmp_path):
    """Findings, by subject and fact, of two files with these documents and the suite changed."""

    def found(one=LONG[:10], two=LONG[10:], *changes):
        for name, documents in (("one", one), ("two", two)):
            lines = [json.dumps({"text": document}) + "\n" for document in documents]
            (tmp_path / f"{name}.jsonl").write_text("".join(lines))
        text = SUITE.replace("ONE", f"{tmp_path}/one.jsonl").replace("TWO", f"{tmp_path}/two.jsonl")
        store = Store(tmp_path / "store")
        plan = plan_of(tmp_path, store, text, set_values=changes)
        findings = admit(plan, store)
        assert admit(plan, store) == findings
        return {(f.subject, f.fact): f for f in findings if f.section in ("corpora", "perplexity")}

    return found


def words(findings):
    return {place: (finding.level, finding.words) for place, finding in findings.items()}


def test_amounts_are_told(found):
    characters = sum(map(len, LONG[10:]))
    assert words(found())["perplexity.ppl", "documents"] == (
        "fine",
        f"10 documents, {characters} characters",
    )
    counted = words(found([*LONG[:3], "", " \n", LONG[1], f" {LONG[2]}"]))
    assert counted["corpora.one", "blank"] == (
        "fine",
        "2 of 7 documents are blank: they are left out",
    )
    level, told = counted["corpora.one", "copies"]
    assert level == "note"
    assert told.startswith("2 of 7 documents are copies of others (")
    nulls = words(found([None, *LONG, None], LONG, "corpora.one.source.nulls=skip"))
    assert nulls["corpora.one", "nulls"] == (
        "note",
        "2 of 22 records are null and skipped (`nulls: skip`)",
    )


def test_documents_that_are_calibrated_on_and_tested_with_are_told(found):
    none = ("fine", "none of 10 documents is in a corpus (whole documents are compared)")
    assert words(found())["perplexity.ppl", "held out"] == none
    share = sum(map(len, LONG[8:10])) / sum(map(len, LONG[8:]))
    assert words(found(LONG[:10], LONG[8:]))["perplexity.ppl", "held out"] == (
        "note",
        f"2 of 12 documents are also in the corpus one ({share:.1%}):"
        " it is calibrated on what it is tested with",
    )
    # Headings that many texts share are no leak.
    short = [*LONG[:10], "= See also ="], ["= See also =", *LONG[10:], "words " * 200]
    assert found(*short)["perplexity.ppl", "held out"].level == "fine"


def test_json_lines_that_are_named_like_plain_text_are_told(found, tmp_path):
    found()
    (tmp_path / "one.txt").write_bytes((tmp_path / "one.jsonl").read_bytes())
    told = found(LONG[:10], LONG[10:], f"corpora.one.source.files=[{tmp_path}/one.txt]")
    finding = told["corpora.one", "format"]
    assert finding.level == "note"
    assert "seems to be JSON lines: it is read as one document" in finding.words


def test_a_seed_that_changes_nothing_is_told(found):
    assert ("corpora.one", "seed") not in found()
    contiguous = "corpora.one.packing=contiguous"
    assert ("corpora.one", "seed") not in found(LONG, LONG, contiguous)
    assert "every seed gives the same sequences" in found(LONG[:1])["corpora.one", "seed"].words
    packing = "corpora.one.packing=document"
    assert ("corpora.one", "seed") not in found(LONG[:3], LONG, packing)
    told = found(LONG[:2], LONG, packing)["corpora.one", "seed"]
    assert (told.level, "their order alone" in told.words) == ("note", True)
    taken = found(LONG[:1], LONG, contiguous, "corpora.one.sequences=1", "corpora.one.length=9")
    told = taken["corpora.one on demo", "seed"]
    assert (told.level, "the text has 1 sequences and all are taken" in told.words) == ("note", 1)


@pytest.mark.parametrize("place", ["corpora.one", "perplexity.ppl"])
@pytest.mark.parametrize(
    ("documents", "problem"),
    [
        ([*LONG, None], ".jsonl:21: field 'text' is null, not a string; `nulls: skip`"),
        ([*LONG, "\ud83d"], ".jsonl:21: field 'text' has half of a surrogate pair"),
        (["", " "], "every document of the source is empty"),
        ([], "every document of the source is empty"),
    ],
)
def test_a_text_that_is_none_is_refused_with_the_line_of_the_suite(
    documents, problem, place, found, tmp_path
):
    both = (documents, LONG) if place == "corpora.one" else (LONG, documents)
    refused = found(*both)[place, "documents"]
    assert refused.level == "refused"
    assert problem in refused.words
    suite = tmp_path / "suite.yaml"
    with pytest.raises(Exception, match=r"suite\.yaml:(6|10):3: ") as caught:
        refuse((refused,), YamlSource.read(suite))
    assert "\n" not in str(caught.value)
    for verb in ("check", "run"):
        done = call(verb, str(suite), cwd=tmp_path, store=tmp_path / "store")
        assert done.returncode == 2
        assert str(caught.value) in done.stderr
        assert done.stderr == f"error: {caught.value}\n"
    assert not (tmp_path / "store" / "statistics").exists()


def test_a_finished_run_reads_no_text(found, tmp_path, monkeypatch):
    found()
    store = Store(tmp_path / "store")
    text = (tmp_path / "suite.yaml").read_text()
    _, before = go(plan_of(tmp_path, store, text), store)

    def unread(*_):
        raise AssertionError("a text was read")

    monkeypatch.setattr("mbench.storage.texts.values", unread)
    plan = plan_of(tmp_path, store, text)
    assert [f for f in admit(plan, store) if f.fact == "documents"]
    _, after = go(plan, store)
    assert after.equals(before)
