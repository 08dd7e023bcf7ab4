"""Calibration on conversations: the tokens are those of transformers, cut as the suite says."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.chat_templates import A_DAY, BOS, NO_SYSTEM, OWN_SYSTEM, THINKING, TODAY, TURNS
from helpers.tokenizers_by_kind import TOKENIZERS
from mbench.core.chat import ChatSpec
from mbench.core.errors import CorpusError
from mbench.core.suite_inputs import CorpusSpec, TextSource
from mbench.moe.conversations import sequences_of_conversations
from mbench.storage.texts import Text

MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% elif m['role'] == 'assistant' %}"
    "{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
"""Says nothing of other roles, as many of the first templates."""
TEMPLATES = {
    "turns": TURNS,
    "bos": BOS,
    "own system": OWN_SYSTEM,
    "no system": NO_SYSTEM,
    "thinking": THINKING,
    "a day": A_DAY,
    "mistral": MISTRAL,
}
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>"]


def made(kind, template):
    tokenizer = copy.deepcopy(TOKENIZERS[kind])
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    tokenizer.add_special_tokens({**names, "additional_special_tokens": SPECIAL[2:]})
    tokenizer.chat_template = template
    return tokenizer


READY = {(kind, name): made(kind, TEMPLATES[name]) for kind in TOKENIZERS for name in TEMPLATES}


def turns(*contents, system=None):
    first = [] if system is None else [{"role": "system", "content": system}]
    roles = ("user", "assistant")
    return [*first, *({"role": roles[at % 2], "content": c} for at, c in enumerate(contents))]


TALKS = [
    turns("the cat", "and the dog, 1234!\n"),
    turns(" Ein Fuß\n\n", "日本 🙂", "the the", "zwei Füße: cafe\u0301"),
    turns("only a question"),
    turns("special <|im_end|> and </s>", "<s> aaaa"),
]


def cut(tmp_path, tokenizer, talks, **asked):
    path = tmp_path / "talks.jsonl"
    path.write_text("".join(json.dumps({"talk": talk}) + "\n" for talk in talks))
    source = TextSource(files=(str(path),), messages="talk", nulls=asked.pop("nulls", "refuse"))
    asked = {"sequences": len(talks), "length": 500, "packing": "document", "join": "", **asked}
    spec = CorpusSpec(source=source, **asked)
    return sequences_of_conversations(Text("corpora.x", source, {}), spec, tokenizer)


def rows(found):
    return [ids[:n].tolist() for ids, n in zip(found.ids, found.lengths, strict=True)]


def reference(tokenizer, talk, **values):
    return tokenizer.apply_chat_template(talk, tokenize=True, return_dict=False, **values)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_tokens_are_those_that_transformers_gives(kind, name, tmp_path):
    tokenizer = READY[kind, name]
    found = cut(tmp_path, tokenizer, TALKS)
    assert sorted(rows(found)) == sorted(reference(tokenizer, talk) for talk in TALKS)
    if name in ("no system", "mistral"):
        return
    chat = ChatSpec(system="Be exact.", options={"enable_thinking": False})
    found = cut(tmp_path, tokenizer, [*TALKS, turns("a", "b", system="Own.")], chat=chat)
    expected = [turns(system="Be exact.") + talk for talk in TALKS]
    expected.append(turns("a", "b", system="Own."))
    values = {"enable_thinking": False}
    assert sorted(rows(found)) == sorted(reference(tokenizer, talk, **values) for talk in expected)


def naively(talks, spec, tokenizer):
    """(ids, length) of each sequence, by the words of `CorpusSpec`; None: there are too few."""
    bos = tokenizer.bos_token_id
    join = tokenizer(spec["join"], add_special_tokens=False)["input_ids"] if spec["join"] else []
    everywhere = spec["bos"] == "document" or (
        spec["bos"] == "window" and spec["packing"] == "document"
    )
    draw = np.random.default_rng(spec["seed"])
    written = [talk for talk in talks if "".join(m["content"] for m in talk).strip()]
    if spec["packing"] != "contiguous":
        written = [written[at] for at in draw.permutation(len(written))]
    tokens = [reference(tokenizer, talk) for talk in written]
    tokens = [[bos] * (everywhere and ids[0] != bos) + ids for ids in tokens]
    if spec["packing"] == "document":
        found = [(ids[: spec["length"]], min(len(ids), spec["length"])) for ids in tokens]
        return found[: spec["sequences"]] if len(found) >= spec["sequences"] else None
    stream, found = [], []
    for number, ids in enumerate(tokens):
        stream += join * (number > 0) + ids
    while stream:
        begin = [bos] * (spec["bos"] == "window" and stream[0] != bos)
        room = spec["length"] - len(begin)
        if len(stream) < room:
            break
        found.append((begin + stream[:room], spec["length"]))
        stream = stream[room:]
    if len(found) < spec["sequences"]:
        return None
    if spec["packing"] == "contiguous":
        return [found[at] for at in sorted(draw.permutation(len(found))[: spec["sequences"]])]
    return found[: spec["sequences"]]


CONTENTS = st.one_of(
    st.sampled_from(["", " ", "the cat", "aaaa " * 9, "<|im_end|>", "<s>", "\n\nFüße 日本 🙂"]),
    st.text(max_size=12),
)


@pytest.mark.parametrize("packing", ["concatenate", "contiguous", "document"])
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    talks=st.lists(st.lists(CONTENTS, max_size=4).map(lambda c: turns(*c)), max_size=7),
    asked=st.fixed_dictionaries(
        {
            "sequences": st.integers(1, 4),
            "length": st.integers(2, 30),
            "bos": st.sampled_from([None, "window", "document"]),
            "join": st.sampled_from(["", "\n\n", " and "]),
            "seed": st.integers(0, 3),
        }
    ),
    which=st.sampled_from(sorted(READY)),
)
def test_conversations_are_cut_one_after_the_other(packing, talks, asked, which, tmp_path):
    tokenizer = READY[which]
    asked["packing"] = packing
    expected = naively(talks, asked, tokenizer)
    if expected is None:
        with pytest.raises(CorpusError, match=r"corpora\.x: the suite asks for"):
            cut(tmp_path, tokenizer, talks, **asked)
        return
    found = cut(tmp_path, tokenizer, talks, **asked)
    assert found.ids.dtype == np.int64
    assert found.ids.shape == (asked["sequences"], asked["length"])
    assert list(zip(rows(found), found.lengths.tolist(), strict=True)) == expected
    assert not found.ids[np.arange(asked["length"]) >= found.lengths[:, None]].any()


def test_bos_is_never_doubled_and_none_is_refused_where_the_template_prints_it(tmp_path):
    bare, printing = READY["byte_level", "turns"], READY["byte_level", "bos"]
    for packing in ("concatenate", "document"):
        small = {"packing": packing, "length": 20, "sequences": 2}
        # Joined, the second sequence begins inside the first conversation.
        begin = {None: 0, "document": 1 + (packing == "document"), "window": 2}
        for bos, count in begin.items():
            found = cut(tmp_path, bare, TALKS, bos=bos, **small)
            assert found.beginning_with(bare.bos_token_id) == count
            found = cut(tmp_path, printing, TALKS, bos=bos, **small)
            assert found.ids[0, 0] == printing.bos_token_id != found.ids[0, 1]
    assert rows(cut(tmp_path, bare, TALKS, bos="none")) == rows(cut(tmp_path, bare, TALKS))
    with pytest.raises(CorpusError, match="`bos: none`, but the chat template begins with BOS"):
        cut(tmp_path, printing, TALKS, bos="none")
    with pytest.raises(CorpusError, match="sequences of 1 token have no room beside BOS"):
        cut(tmp_path, bare, TALKS, bos="window", length=1, packing="contiguous")
    without = made("byte_level", TURNS)
    without.bos_token = None
    with pytest.raises(CorpusError, match=r"corpora\.x: `bos: window` is asked for, but the tok"):
        cut(tmp_path, without, TALKS, bos="window")


def test_what_check_tells_is_counted(tmp_path):
    tokenizer = READY["word_piece", "bos"]
    lengths = [len(reference(tokenizer, talk)) for talk in TALKS]
    found = cut(tmp_path, tokenizer, TALKS, length=10).conversations
    assert sorted(found.lengths) == sorted(lengths)
    assert sorted(found.turns) == [1, 2, 2, 4]
    assert (found.begin_with_bos, found.inside) == (4, 0)
    assert (found.typed, found.typed_token) == (1, "<|im_end|>")
    shown = [tokenizer.apply_chat_template(talk, tokenize=False)[:100] for talk in TALKS]
    assert found.example in shown
    # The first sequence begins with a conversation, the second where the first one ends.
    asked = {"packing": "contiguous", "sequences": 2, "length": lengths[0]}
    assert cut(tmp_path, tokenizer, TALKS[:1] * 2, **asked).conversations.inside == 0
    asked["length"] += 1
    asked["sequences"] = 1
    assert cut(tmp_path, tokenizer, TALKS[:1] * 2, **asked).conversations.inside == 0
    asked["length"] -= 2
    asked["sequences"] = 2
    assert cut(tmp_path, tokenizer, TALKS[:1] * 2, **asked).conversations.inside == 1
    unread = cut(tmp_path, tokenizer, TALKS, chat=ChatSpec(options={"thinking": True}))
    assert unread.conversations.unread == ("thinking",)


CALL = {"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": {}}]}


@pytest.mark.parametrize(
    ("name", "talk", "problem"),
    [
        (
            "no system",
            turns("a", "b", system="S"),
            "not take it: its chat template says: 'System role not supp",
        ),
        ("no system", [*turns("a"), *turns("b")], "says: 'Conversation roles must"),
        ("mistral", turns("a", "b", system="S"), "leaves out a message of 'system' (message 1)"),
        ("mistral", [*turns("a"), {"role": "tool", "content": "4"}], "of 'tool' (message 2)"),
        ("turns", [*turns("a"), CALL], "leaves out `tool_calls` (message 2)"),
        ("today", turns("a", "b"), "prints today's date: give `date` in `chat`"),
    ],
)
def test_what_a_template_does_not_take_is_refused_with_its_row(tmp_path, name, talk, problem):
    tokenizer = made("byte_level", {**TEMPLATES, "today": TODAY}[name])
    with pytest.raises(CorpusError) as caught:
        cut(tmp_path, tokenizer, [[], talk, []], packing="contiguous", sequences=1, length=2)
    assert str(caught.value).startswith(f"corpora.x: {tmp_path}/talks.jsonl:2: ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_template_that_takes_tools_is_given_them(tmp_path):
    tokenizer = made(
        "byte_level",
        TURNS.replace("{% for m in messages %}", "{% for m in messages %}{{ m.tool_calls }}"),
    )
    talk = [*turns("a"), CALL, {"role": "tool", "content": "4"}]
    (found,) = rows(cut(tmp_path, tokenizer, [talk]))
    told = [talk[0], {**CALL, "content": ""}, talk[2]]
    assert found == reference(tokenizer, told)


def test_calls_may_be_printed_in_place_of_an_empty_content_only(tmp_path):
    tokenizer = made(
        "byte_level",
        "{% for m in messages %}<|im_start|>{{ m.role }}{% if m.tool_calls %}"
        "{{ m.tool_calls | tojson }}{% else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}",
    )
    talk = [*turns("a", "b"), *turns("c"), CALL]
    (found,) = rows(cut(tmp_path, tokenizer, [talk]))
    assert found == reference(tokenizer, [*talk[:-1], {**CALL, "content": ""}])
    with pytest.raises(CorpusError, match=r"leaves out a message of 'assistant' \(message 4\)"):
        cut(tmp_path, tokenizer, [[*talk[:-1], {**CALL, "content": "I look it up"}]])


def test_a_tokenizer_without_a_template_is_named(tmp_path):
    tokenizer = made("byte_level", None)
    with pytest.raises(CorpusError, match=r"corpora\.x: .* its tokenizer has no chat template"):
        cut(tmp_path, tokenizer, TALKS)


def test_nulls_and_empty_conversations_are_left_out(tmp_path):
    tokenizer = READY["unigram", "turns"]
    talks = [None, [], TALKS[0], turns("", " ")]
    with pytest.raises(CorpusError, match=r":1: field 'talk' is null, not a list.*`nulls: skip`"):
        cut(tmp_path, tokenizer, talks, sequences=1)
    found = cut(tmp_path, tokenizer, talks, sequences=1, nulls="skip")
    assert rows(found) == [reference(tokenizer, TALKS[0])]
    with pytest.raises(
        CorpusError, match=r"2 sequences of one conversation each, .* only 1 conver"
    ):
        cut(tmp_path, tokenizer, talks, sequences=2, nulls="skip")
