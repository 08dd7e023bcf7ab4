"""Conversations: the same from every format and layout; what is none is refused with its place."""

from __future__ import annotations

import gzip

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from helpers.conversation_files import TALK_FORMATS, talk_lines
from mbench.core.errors import CorpusError
from mbench.core.suite import PerplexityTask
from mbench.core.suite_inputs import CorpusSpec, TextSource
from mbench.storage.inputs import Inputs
from mbench.storage.texts import Text

TALKS = [
    [{"role": "system", "content": "S"}, {"role": "user", "content": 'a "ü"\r\n\u2028🙂'}],
    [],
    [{"role": "user", "content": ""}, {"role": "assistant", "content": "b"}],
]


def read(*paths, **source):
    text = Text("corpora.c", source_of(*paths, **source), {})
    return [
        each if each is None else list(map(dict, each.messages)) for each in text.conversations()
    ]


def source_of(*paths, **source):
    return TextSource(files=tuple(map(str, paths)), messages="talk", **source)


@pytest.mark.parametrize("name", TALK_FORMATS)
def test_every_format_gives_the_same_conversations(name, tmp_path):
    path, packed = tmp_path / name, tmp_path / "packed.jsonl.gz"
    path.write_bytes(TALK_FORMATS[name](TALKS))
    packed.write_bytes(gzip.compress(talk_lines(TALKS)))
    assert read(path) == TALKS
    assert read(path, packed) == TALKS * 2


MESSAGES = st.fixed_dictionaries({"role": st.text(max_size=5), "content": st.text(max_size=9)})


@settings(max_examples=60, deadline=None)
@given(
    talks=st.lists(st.lists(MESSAGES, min_size=1, max_size=3), min_size=1, max_size=4),
    name=st.sampled_from(sorted(TALK_FORMATS)),
)
def test_any_conversation_comes_back_from_any_format(talks, name, tmp_path_factory):
    path = tmp_path_factory.mktemp("drawn") / name
    path.write_bytes(TALK_FORMATS[name](talks))
    assert read(path) == talks


def test_other_layouts_mean_the_same(tmp_path):
    def one(talk):
        (tmp_path / "a.jsonl").write_bytes(talk_lines([talk]))
        (found,) = read(tmp_path / "a.jsonl")
        return found

    shared = [("system", "S"), ("human", "a"), ("gpt", "b"), ("user", "c"), ("assistant", "d")]
    roles = ["system", "user", "assistant", "user", "assistant"]
    expected = [{"role": r, "content": c} for r, (_, c) in zip(roles, shared, strict=True)]
    assert one([{"from": f, "value": v, "weight": 1} for f, v in shared]) == expected
    assert one([{"role": None, "from": f, "value": v} for f, v in shared]) == expected
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b", "image": None}]
    assert one([{"role": "user", "content": parts}]) == [{"role": "user", "content": "a b"}]
    call = {"role": "assistant", "content": None, "tool_calls": [{"a": {"b": None, "c": 1}}]}
    assert one([call]) == [{**call, "content": "", "tool_calls": [{"a": {"c": 1}}]}]


BAD = [
    ("null", "is null, not a list of messages; `nulls: skip` leaves such records out"),
    ('"[]"', "is a string, not a list of messages"),
    ("7", "is a number (7), not a list of messages"),
    ("{}", "is an object, not a list of messages"),
    ('{"role": ["user"], "content": ["a", "b"]}', "is an object, not a list of messages"),
    ('["a"]', "message 1 is a string, not an object"),
    ("[null]", "message 1 is null, not an object"),
    ('[{"role": "user", "content": "a"}, {"content": "b"}]', "message 2 has neither role and"),
    ('[{"text": "b", "by": 1}]', "nor from and value, but 'text', 'by'"),
    ("[{}]", "nor from and value, but nothing"),
    ('[{"role": "user"}]', "message 1 has a role, but no content"),
    ('[{"role": "user", "content": null}]', "message 1 has a role, but no content"),
    ('[{"role": "user", "content": null, "tool_calls": []}]', "has a role, but no content"),
    ('[{"role": 1, "content": "a"}]', "has a role that is a number (1), not a string"),
    ('[{"role": "user", "content": 1}]', "has a content that is a number (1), not a string"),
    (r'[{"role": "user", "content": "\ud83d"}]', "has a content that has half of a surrogate"),
    ('[{"role": "user", "content": ["a"]}]', "has a part that is a string; parts of type 'text'"),
    ('[{"role": "user", "content": [{"type": "image"}]}]', "has a part of type 'image'; parts of"),
    ('[{"role": "user", "content": [{"type": "text"}]}]', "has a text that is null, not a string"),
    ('[{"from": "tool", "value": "a"}]', "is from 'tool', who is none of human, user, gpt, assis"),
    ('[{"from": "gpt", "value": 1}]', "has a value that is a number (1), not a string"),
    ('[{"role": "user", "role": "x", "content": "a"}]', "has the key 'role' 2 times"),
]


@pytest.mark.parametrize(("value", "problem"), BAD, ids=range(len(BAD)))
def test_what_is_no_conversation_is_refused_with_file_and_row(value, problem, tmp_path):
    fine = '{"talk": [{"role": "user", "content": "a"}]}'
    for name, content, place in [
        ("a.jsonl", f'{fine}\n\n{{"talk": {value}}}\n', ":3: field 'talk' "),
        ("a.json", f'[{fine}, {{"talk": {value}}}]', ":record 2: field 'talk' "),
    ]:
        path = tmp_path / name
        path.write_text(content)
        with pytest.raises(CorpusError) as caught:
            read(path)
        assert str(caught.value).startswith(f"corpora.c: {path}{place}")
        assert problem in str(caught.value)
        assert "\n" not in str(caught.value)


def test_rows_of_tables_and_missing_fields_are_named(tmp_path):
    path = tmp_path / "a.parquet"
    held = [[{"role": "user", "content": "a"}], [{"role": "user", "content": None}]]
    pyarrow.parquet.write_table(pyarrow.table({"talk": held}), path)
    with pytest.raises(CorpusError, match=r"a\.parquet:row 2: field 'talk' message 1 has a role"):
        read(path)
    pyarrow.parquet.write_table(pyarrow.table({"messages": held}), path)
    with pytest.raises(CorpusError, match="no field 'talk'; it has 'messages'"):
        read(path)


def test_nulls_are_skipped_where_the_suite_says_so(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(talk_lines([None, TALKS[0], None]))
    assert read(tmp_path / "a.jsonl", nulls="skip") == [None, TALKS[0], None]


@pytest.mark.parametrize(("name", "kind"), [("a.txt", "plain text"), ("a.csv", "CSV")])
def test_files_without_lists_are_refused_before_they_are_read(name, kind, tmp_path):
    path = tmp_path / name
    path.write_text("talk\na\n")
    words = f"{path}: {kind} holds no conversations"
    for ask in (lambda text: text.identity(), lambda text: list(text.conversations())):
        with pytest.raises(CorpusError, match=words):
            ask(Text("corpora.c", source_of(path), {}))


def test_the_identity_tells_conversations_from_texts(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(talk_lines(TALKS))
    text = TextSource(files=(str(path),), field="talk")
    both = [Text("corpora.c", each, {}).identity() for each in (text, source_of(path))]
    assert both[0] != both[1]
    assert {**both[0], "messages": "talk"} == {**both[1], "field": "talk"}


def test_conversations_of_the_hub_are_read_and_named(online, store):
    talks = TALKS[2:]
    online.push("dataset", "acme/talks", {"train.jsonl": talk_lines([*talks, None])})
    online.push("dataset", "acme/bad", {"train.jsonl": talk_lines([[{"role": "user"}]])})

    def read(name, **source):
        source = TextSource(hub=name, messages="talk", **source)
        text = Text("corpora.c", source, {}, "", Inputs(store))
        return [list(map(dict, each.messages)) for each in text.conversations() if each]

    assert read("acme/talks", nulls="skip") == talks
    with pytest.raises(CorpusError, match="acme/talks, split train, row 2: field 'talk' is null"):
        read("acme/talks")
    with pytest.raises(CorpusError, match=r"acme/bad, split train, row 1: .* message 1 has a role"):
        read("acme/bad")


def test_a_suite_that_asks_for_what_means_nothing_is_told():
    source = {"files": ("a.jsonl",), "messages": "m"}
    for wrong, problem in [
        ({**source, "field": "text"}, "give field, of texts, or messages, of conversations"),
        ({"plugin": "p", "messages": "m"}, "messages means nothing beside plugin"),
    ]:
        with pytest.raises(ValidationError, match=problem):
            TextSource.model_validate(wrong)
    corpus = {"source": source, "sequences": 1, "length": 2}
    for changed, problem in [
        ({"chat": {"template": False}}, "`template: false` has none"),
        ({"chat": {"multiturn": True}}, "conversations are turns already"),
        ({"chat": {}, "source": {"files": ("a",)}}, "chat means nothing without messages"),
    ]:
        with pytest.raises(ValidationError, match=problem):
            CorpusSpec.model_validate({**corpus, **changed})
    with pytest.raises(ValidationError, match="messages are for calibration corpora"):
        PerplexityTask.model_validate({"source": source})
