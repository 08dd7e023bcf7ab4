"""Texts: the same documents from every format; what is no text is refused with its place."""

from __future__ import annotations

import gzip
import json
import os

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.text_formats import COMPRESSIONS, FORMATS, TABLES, json_lines
from mbench.core.errors import CorpusError, PluginError
from mbench.core.suite_inputs import TextSource
from mbench.storage.inputs import Inputs
from mbench.storage.texts import Text

DOCUMENTS = ["one\ntwo", "", "U+2028 \u2028 U+0085 \x85 \x0b\x0c\x1c\x1d\x1e", 'quoted "ü"\t🙂\r\n']


def text_of(*paths, **source):
    return Text("corpora.c", TextSource(files=tuple(map(str, paths)), **source), {})


def read(*paths, **source):
    return ["".join(document) for document in text_of(*paths, **source).in_parts()]


def refusal(*paths, **source):
    with pytest.raises(CorpusError) as caught:
        read(*paths, **source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_documents(name, write):
    content = FORMATS[name](DOCUMENTS)
    assert read(write(name, content)) == DOCUMENTS
    for end, compress in COMPRESSIONS.items():
        compressed = compress(content)
        if name.endswith(TABLES):
            assert f"{name}{end}: " in refusal(write(name + end, compressed))
            continue
        half = len(content) // 2
        assert read(write(name + end, compressed)) == DOCUMENTS
        assert read(write(name, compressed)) == DOCUMENTS  # its name does not say so
        several = compress(content[:half]) + compress(content[half:])
        assert read(write(name + end.upper(), several)) == DOCUMENTS


@settings(max_examples=60, deadline=None)
@given(documents=st.lists(st.text(), max_size=6), name=st.sampled_from(sorted(FORMATS)))
def test_any_unicode_comes_back_from_any_format(documents, name, tmp_path_factory):
    if name.endswith(("csv", "tsv")):
        documents = [text.replace("\0", "") for text in documents]
    path = tmp_path_factory.mktemp("drawn") / name
    path.write_bytes(FORMATS[name](documents))
    assert read(path) == documents


def test_content_tells_where_the_name_does_not(write):
    for name in ("a.parquet", "a.arrow", "stream.arrow"):
        assert read(write("named.json", FORMATS[name](DOCUMENTS))) == DOCUMENTS
    assert read(write("a.json", "")) == []
    assert read(write("a.json", "[]")) == read(write("a.json", " [ ]\n")) == []
    # One document each, also of a name that says nothing.
    assert read(write("wiki.test.raw", "a"), write("b.txt", "{}\n"), write("c", "")) == [
        "a",
        "{}\n",
        "",
    ]


def test_plain_text_is_read_as_pythons_text_files_are(write):
    text = "é🙂\r\nx\ry\n\x0c\u2028" * 150_000  # characters and line ends across parts
    expected = text.replace("\r\n", "\n").replace("\r", "\n")
    assert read(write("a.txt", text)) == [expected]
    assert read(write("a.txt", b"\xef\xbb\xbf" + text.encode())) == [expected]
    assert read(write("a.md.gz", gzip.compress(text.encode()))) == [expected]


def test_a_line_of_many_megabytes_is_one_record(write):
    long = "ab🙂" * 5_000_000
    assert read(write("a.jsonl", json_lines(["x", long, "y"]))) == ["x", long, "y"]


BAD_RECORDS = [
    ("null", "is null, not a string; `nulls: skip` leaves such records out"),
    ("12", "is a number (12), not a string"),
    ("NaN", "is a number (nan), not a string"),
    ("true", "is true, not a string"),
    ("{}", "is an object, not a string"),
    ("[]", "is a list, not a string"),
    ('["a"]', "is a list, not a string"),
    ('[{"role": "user", "content": "Hi"}]', "name its field in `messages`"),
    (r'"\ud83d!"', r"half of a surrogate pair, which is no character: '\ud83d' at character 1"),
    ('"a", "text": "b"', "field 'text' is there 2 times"),
    ('"a\n', "not a JSON object: Invalid control character at character 12"),
    ('"\0"', "not UTF-8 text: byte 45 is NUL"),
    ("1" * 5000, "not a JSON object: a number of thousands of digits"),
    ("[" * 100_000, "not a JSON object: nested too deeply"),
]


@pytest.mark.parametrize(("value", "problem"), BAD_RECORDS, ids=range(len(BAD_RECORDS)))
def test_what_is_no_text_is_refused_with_file_and_line(value, problem, write):
    path = write("a.jsonl", f'{{"text": "\u2028"}}\n\n{{"text": "fine"}}\n{{"text": {value}}}\n')
    words = refusal(path)
    assert words.startswith(f"corpora.c: {path}:4: ")
    assert problem in words
    in_list = write("a.json", f'[{{"text": "x"}},\n{{"text": {value}}}]')
    if "NUL" not in problem:
        assert refusal(in_list).startswith(f"corpora.c: {in_list}:record 2: ")


def test_what_is_no_record_is_refused_with_its_place(write):
    for content, problem in [
        ('{"text": "a"}\n["b"]\n', ":2: not a JSON object but a list"),
        ('{"text": "a"}\n"b"\n', ":2: not a JSON object but a string"),
        ('{"text": "a"} {"text": "b"}\n', ":1: not a JSON object: Extra data at character 15"),
        ('{\n  "text": "a"\n}\n', ":1: not a JSON object: Expecting property name"),
        ('{"text": "a"}\n{"Text": "b", "n": 1}\n', ":2: no field 'text'; it has 'Text', 'n'"),
        ('{"messages": []}\n', "name its field in `messages`"),
        ('["a"]', ":record 1: not a JSON object but a string"),
        ('[{"text": "a"}, {"text": "b"}', ":record 3: not a JSON object: the list does not end"),
        ('[{"text": "a"}] x', ":record 2: not a JSON object: something follows the list"),
        ('[{"text": "a"} {"text": "b"}]', ":record 2: not a JSON object: '{' in place of , or ]"),
    ]:
        assert problem in refusal(write("a.json", content))
    for content, problem in [
        ("", ":1: no field 'text'; it has none"),
        ("text,text\na,b\n", ":1: field 'text' is there 2 times"),
        ("text,n\nfine,1\nwith, comma,2\n", ":3: 3 fields where the first line names 2"),
        ('text\n"a"b\n', ":2: no CSV: ',' expected after '\"'"),
        ('text\n"a\n', ":2: no CSV: unexpected end of data"),
    ]:
        assert problem in refusal(write("a.csv", content))


def test_rows_of_tables_are_named(write):
    chat = [[{"role": "user", "content": "Hi"}]]
    for values, problem in [
        (["a", None], ":row 2: field 'text' is null"),
        ([1.5], ":row 1: field 'text' is a number (1.5)"),
        ([b"a"], ":row 1: field 'text' is of type bytes"),
        (chat, ":row 1: field 'text' is a list of chat messages"),
    ]:
        path = write("a.parquet", b"")
        pyarrow.parquet.write_table(pyarrow.table({"text": values}), path)
        assert problem in refusal(path)
        assert "no field 'body'; it has 'text'" in refusal(path, field="body")
    invalid = pyarrow.Array.from_buffers(
        pyarrow.string(), 2, pyarrow.array([b"ab", b"\xff"]).buffers()
    )
    pyarrow.parquet.write_table(pyarrow.table({"text": invalid}), path)
    assert f"{path}:row 2: not UTF-8 text" in refusal(path)


def test_nulls_are_skipped_where_the_suite_says_so(write):
    path = write("a.jsonl", '{"text": null}\n{"text": "a"}\n{"text": null}\n')
    assert read(path, nulls="skip") == ["a"]
    assert [record is None for record in text_of(path, nulls="skip").records()] == [1, 0, 1]
    assert "no field" in refusal(write("b.jsonl", "{}"), nulls="skip")


def test_files_that_are_no_text_are_refused_by_what_they_are(write, tmp_path):
    some = json_lines(["ä"] * 50, ascii_only=False)
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "forbidden.txt").write_text("x")
    for name, content, problem in [
        ("a.jsonl.gz", some, "named like gzip, but its content is not gzip"),
        ("a.gz", b"", "named like gzip, but its content is not gzip"),
        ("a.zst", gzip.compress(some), "named like zstd, but its content is not zstd"),
        ("a.parquet", some, "named like parquet, but its content is not parquet"),
        ("a.jsonl.gz", gzip.compress(gzip.compress(some)), "compressed twice"),
        ("a.txt", "x".encode("utf-16"), "UTF-16 text: convert it to UTF-8"),
        ("a.txt", "x".encode("utf-32"), "UTF-32 text: convert it to UTF-8"),
        ("a.jsonl", some.decode().encode("utf-16-le"), ":1: not UTF-8 text: byte 2 is NUL"),
        ("a.jsonl", some.decode().encode("latin-1"), ":1: not UTF-8 text: byte "),
        ("a.txt", b"x" * 2**21 + "ä".encode("latin-1"), "byte 2097153 (0xe4)"),
        ("a.txt", b"\xef\xbb\xbfx\0", "not UTF-8 text: byte 5 is NUL"),
        ("a.txt.gz", gzip.compress("aä".encode()[:2]), "byte 2 of what it holds compressed (0xc3)"),
        ("a.txt", b"PK\x03\x04 and so on", "a zip archive"),
        ("a.text", some, "looks like JSON lines: name it .jsonl"),
        ("pipe.jsonl", None, "no regular file"),
        ("", None, "a folder: name its files"),
        ("gone.txt", None, "no such file"),
    ]:
        path = tmp_path / name if content is None else write(name, content)
        words = refusal(path)
        assert problem in words
        assert str(path) in words


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read_is_one_line(write):
    path = write("a.txt", "x")
    path.chmod(0)
    assert "cannot be read: Permission denied" in refusal(path)


def test_the_identity_is_that_of_the_bytes_and_of_how_they_are_read(write, store):
    def identity(*paths, **source):
        return text_of(*paths, **source).identity()

    path = write("a.jsonl", json_lines(DOCUMENTS))
    same = identity(path)
    assert identity(write("copy.ndjson", path.read_bytes())) == same
    others = [
        identity(path, field="body"),
        identity(path, nulls="skip"),
        identity(path, path),
        identity(write("a.txt", path.read_bytes())),
        identity(write("b.jsonl", json_lines(DOCUMENTS[::-1]))),
        Text("corpora.c", TextSource(files=(str(path),)), {}, "other code").identity(),
    ]
    assert len({json.dumps(each) for each in [same, *others]}) == len(others) + 1


def test_a_file_that_changes_after_its_identity_was_found_is_refused(write):
    path = write("a.jsonl", json_lines(["a", "b"]))
    text = text_of(path)
    text.identity()
    write("a.jsonl", json_lines(["a", "B"]))
    with pytest.raises(CorpusError, match=r"a\.jsonl: changed since the run was planned"):
        list(text.records())
    text = text_of(path)
    documents = text.records()
    next(documents)
    path.unlink()
    with pytest.raises(CorpusError, match=r"a\.jsonl: cannot be read: No such file"):
        list(documents)


@pytest.mark.parametrize(
    ("gives", "problem"),
    [
        ("one", "gave one string, not a list of documents"),
        (["a", None], "document 2 is null, not a string"),
        ([b"a"], "document 1 is of type bytes, not a string"),
        (["a", "\udc80"], "document 2 has half of a surrogate pair"),
        (None, "raised TypeError: 'NoneType' object is not iterable"),
    ],
)
def test_a_plugin_that_gives_no_texts_is_named(gives, problem):
    text = Text("corpora.c", TextSource(plugin="p", split="s"), {"p": lambda split: gives})
    with pytest.raises(PluginError) as caught:
        list(text.records())
    assert str(caught.value).startswith("corpora.c: plugin corpus 'p', split 's', ")
    assert problem in str(caught.value)
    with pytest.raises(PluginError):
        text.identity()


def test_rows_of_the_hub_are_named(online, store):
    def lines(*rows):
        return "".join(json.dumps(row) + "\n" for row in rows).encode()

    chat = [{"role": "user", "content": "Hi"}]
    files = {
        "train.jsonl": lines({"text": "\u2028 a"}, {"text": None}, {"text": "b"}),
        "test.jsonl": lines({"text": "c"}, {"text": "\u0085 d\r\n"}),
    }
    online.push("dataset", "acme/texts", files)
    online.push("dataset", "acme/numbers", {"train.jsonl": lines({"text": 1}, {"text": 2})})
    online.push("dataset", "acme/chats", {"train.jsonl": lines({"text": chat}, {"text": chat})})

    def read(name, **source):
        text = Text("corpora.c", TextSource(hub=name, **source), {}, "", Inputs(store))
        return ["".join(document) for document in text.in_parts()]

    assert read("acme/texts", split="test") == ["c", "\u0085 d\r\n"]
    assert read("acme/texts", nulls="skip") == ["\u2028 a", "b"]
    for name, problem in [
        ("acme/texts", "row 2: field 'text' is null, not a string; `nulls: skip` leaves such"),
        ("acme/numbers", "row 1: field 'text' is a number (1), not a string"),
        ("acme/chats", "row 1: field 'text' is a list of chat messages (a conversation is no text"),
    ]:
        with pytest.raises(CorpusError) as caught:
            read(name)
        assert f"corpora.c: {name}, split train, {problem}" in str(caught.value)
