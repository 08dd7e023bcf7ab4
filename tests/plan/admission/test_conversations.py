"""Corpora of conversations in a plan: their keys, what `check` tells of them, and a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from helpers.chat_templates import BOS, NO_SYSTEM, TURNS
from helpers.tiny_suite import go, plan_of
from mbench.core.errors import MbenchError
from mbench.plan.admission.admit import admit
from mbench.plan.in_words import protocol_in_words
from mbench.run.provenance import gather
from mbench.storage.store import Store
from mbench_plugins.demo.plugin import MODEL

SUITE = """\
name: tiny
models:
  demo: {path: MODEL, dtype: float32}
retain: [0.5]
corpora:
  talks: {source: {files: [TALKS], messages: talk}, sequences: 3, length: 40, packing: document}
  text: {source: {plugin: wiki, split: calibration}, sequences: 2, length: 40}
  both: {mix: {talks: 2, text: 4}}
methods:
  reap: {corpora: [talks]}
  mixed: {use: reap, corpora: [both]}
perplexity:
  ppl:
    {source: {plugin: wiki, split: evaluation}, protocol: gptq, window: 8, max_windows: 2}
"""


def talk(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


LONG = "And God saw the light, that it was good: and God divided the light from the darkness. " * 4
TALKS = [talk("And the light?", LONG), [], talk("Who?", "He."), talk("The end <|endoftext|>", "!")]


@pytest.fixture
def planned(tmp_path):
    """A plan of the suite above, changed, on the demo's model with a chat template."""

    def planned(template=TURNS, talks=TALKS, changes=(), text=SUITE, **narrowing):
        folder = tmp_path / "model"
        shutil.copytree(MODEL, folder, dirs_exist_ok=True)
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        if template:
            (folder / "chat_template.jinja").write_text(template)
        lines = "".join(json.dumps({"talk": each}) + "\n" for each in talks)
        (tmp_path / "talks.jsonl").write_text(lines)
        text = text.replace("MODEL", str(folder)).replace("TALKS", str(tmp_path / "talks.jsonl"))
        store = Store(tmp_path / "store")
        return plan_of(tmp_path, store, text, set_values=list(changes), **narrowing)

    return planned


def told(plan):
    found = admit(plan, plan.inputs.store)
    return {(f.subject, f.fact): (f.level, f.words) for f in found if f.section == "corpora"}


def test_conversations_are_told_as_texts_are_and_as_the_model_reads_them(planned):
    plan = planned(BOS, changes=["chat={options: {thinking: true}}"])
    found = told(plan)
    tokenizer = plan.models[0].tokenizer
    lengths = [
        len(tokenizer(tokenizer.apply_chat_template(t, tokenize=False)).input_ids)
        for t in TALKS
        if t
    ]
    characters = sum(len(message["content"]) for each in TALKS for message in each)
    assert found["corpora.talks", "documents"] == (
        "fine",
        f"4 conversations, 2 turns each, {characters} characters",
    )
    assert found["corpora.talks", "blank"][1] == "1 of 4 conversations are blank: they are left out"
    assert "every conversation is taken" in found["corpora.talks", "seed"][1]
    lost, over = sum(max(0, n - 40) for n in lengths), sum(n > 40 for n in lengths)
    words = f"3 of {sorted(lengths)[1]} tokens in the median, {max(lengths):,} at most; {over} are"
    words += f" cut at 40, {lost / sum(lengths):.1%} of all tokens lost"
    assert found["corpora.talks on demo", "conversations"] == ("note", words)
    assert found["corpora.talks on demo", "BOS"] == ("fine", "3 of 3 conversations begin with BOS")
    level, words = found["corpora.talks on demo", "typed tokens"]
    assert level == "note"
    assert words.startswith("in 1 of 3 conversations somebody typed a special token, e.g. '<|end")
    level, words = found["corpora.talks on demo", "example"]
    shown = [tokenizer.apply_chat_template(t, tokenize=False)[:100] for t in TALKS if t]
    assert words in [f"begins {each!r}" for each in shown]
    assert found["corpora.talks on demo", "options"] == (
        "note",
        "the model's chat template reads no thinking: it changes nothing",
    )
    # In a mix each part is told by itself.
    assert "2 of talks, 4 of text" in found["corpora.both on demo", "sequences"][1]
    assert ("corpora.both on demo", "conversations of talks") in found
    assert ("corpora.both on demo", "conversations of text") not in found
    joined = told(planned(BOS, changes=["corpora.talks.packing=contiguous"]))
    assert "joined, " in joined["corpora.talks on demo", "conversations"][1]


@pytest.mark.parametrize(
    ("template", "talks", "subject", "fact", "problem"),
    [
        (None, TALKS, "corpora.talks on demo", "sequences", "its tokenizer has no chat template"),
        (
            NO_SYSTEM,
            [*TALKS, [*TALKS[0], *TALKS[0][1:]]],
            "corpora.talks on demo",
            "sequences",
            "talks.jsonl:5: the model does not take it: its chat template says: 'Conversation rol",
        ),
        (TURNS, [*TALKS, [{"role": "user"}]], "corpora.talks", "documents", "talks.jsonl:5: field"),
        (TURNS, [[], []], "corpora.talks", "documents", "every conversation of the source is empt"),
    ],
)
def test_what_cannot_be_rendered_is_refused_once(planned, template, talks, subject, fact, problem):
    plan = planned(template, talks, ["corpora.talks.sequences=4", "corpora.both.mix.talks=1"])
    found = told(plan)
    assert found[subject, fact][0] == "refused"
    assert problem in found[subject, fact][1]
    refused = {place[0] for place, (level, _) in found.items() if level == "refused"}
    assert refused <= {subject, "corpora.both on demo"}


def statistics(plan, method):
    cells = [cell for cell in plan.cells if cell.method.name == method]
    return {job.key.digest for cell in cells for jobs in cell.statistics.values() for job in jobs}


def test_keys_hold_how_conversations_are_rendered_and_nothing_else_of_chats(planned):
    first = statistics(planned(), "reap")
    chats = [
        "chat={}",
        "chat={multiturn: true}",
        "chat={template: false}",
        "corpora.talks.chat={}",
        "corpora.talks.join=''",
    ]
    for change in chats:
        assert statistics(planned(changes=[change]), "reap") == first, change
    others = [
        statistics(planned(changes=[change]), "reap")
        for change in (
            "chat={system: Be kind.}",
            "chat={options: {enable_thinking: false}}",
            "chat={date: 2026-01-01}",
            "corpora.talks.join=' '",
            "corpora.talks.bos=document",
        )
    ]
    others.append(statistics(planned(BOS), "reap"))
    assert len({frozenset(each) for each in [first, *others]}) == len(others) + 1
    own = ["chat={system: Be kind.}", "corpora.talks.chat={system: Be brief.}"]
    alone = statistics(planned(changes=own[1:]), "reap")
    assert statistics(planned(changes=own), "reap") == alone
    # A text is in no template.
    text = SUITE.replace("corpora: [talks]", "corpora: [text]")
    assert statistics(planned(text=text), "reap") == statistics(
        planned(text=text, changes=["chat={system: Be kind.}"]), "reap"
    )


def test_conversations_are_calibrated_on_alone_and_in_a_mix(planned, tmp_path):
    plan = planned(changes=["chat={system: Be kind.}"])
    tokenizer = plan.models[0].tokenizer
    alone = plan.corpora["talks"].cut(tokenizer)
    assert len(alone.ids) == 3
    assert (alone.lengths == 40).any()
    mixed = plan.corpora["both"].cut(tokenizer)
    rows = [set(map(tuple, found.ids.tolist())) for found in (alone, mixed)]
    assert len(rows[0] & rows[1]) == 2
    outcome, _ = go(plan, plan.inputs.store)
    assert outcome.profiles["demo", "talks"].tokens == alone.tokens
    assert outcome.profiles["demo", "both"].tokens == mixed.tokens
    provenance = gather(plan, outcome, tmp_path / "suite.yaml", ["mbench"], [])
    assert provenance.corpora["talks"].chat["system"] == "Be kind."
    assert provenance.corpora["text"].chat is None
    said = {entry.name: entry.text for entry in protocol_in_words(plan.suite, plan.corpora)}
    words = said["Calibration corpus talks"]
    assert "3 sequences of 40 tokens of conversations in local files" in words
    assert words.endswith("template, system message 'Be kind.' where there is none")


def test_a_redirected_corpus_is_read_as_before(planned, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"talk": TALKS[0]}) + "\n")
    plan = planned(texts=[f"talks={other}"])
    assert [c.turns for c in plan.texts["talks"].conversations()] == [2]
    Path(other).with_suffix(".txt").write_text("text")
    with pytest.raises(MbenchError, match=r"^--text talks=.*other\.txt: plain text holds no conv"):
        planned(texts=[f"talks={other.with_suffix('.txt')}"])
