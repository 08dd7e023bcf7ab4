"""Damaged files of text: the right documents, or one line that names the file; no traceback."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from helpers.conversation_files import TALK_FORMATS
from helpers.text_formats import COMPRESSIONS, FORMATS, TABLES, json_lines
from mbench.core.errors import CorpusError
from mbench.core.suite_inputs import TextSource
from mbench.storage.texts import Text

TALKS = [
    [{"role": "system", "content": "ü"}, {"role": "user", "content": "first\n🙂"}],
    [],
    [{"role": "user", "content": 'a "b"'}, {"role": "assistant", "content": "x" * 300}],
]
DOCUMENTS = ["first\ndocument", "", 'a "quoted" ü 🙂', "x" * 300, "and the last\t"]
ENDS = ["", *COMPRESSIONS]

few_or_many = pytest.mark.parametrize("examples", [40, pytest.param(3000, marks=pytest.mark.long)])


def damaged(content, draw):
    """Bytes as they may come from a bad disk, an interrupted download or a careless program."""
    at = draw.randrange(len(content) + 1)
    stretch = draw.choice([1, 1, 4, 64])
    kind = draw.choice(["bit", "cut", "lost", "added", "zeros", "foreign", "twice"])
    if kind == "bit":
        at = min(at, len(content) - 1)
        flipped = content[at] ^ (1 << draw.randrange(8))
        return content[:at] + bytes([flipped]) + content[at + 1 :]
    middle = {
        "cut": b"",
        "lost": content[at + stretch :],
        "added": draw.randbytes(stretch) + content[at:],
        "zeros": bytes(stretch) + content[at + stretch :],
        "foreign": draw.randbytes(stretch) + content[at + stretch :],
        "twice": content[max(0, at - stretch) :],
    }
    return content[:at] + middle[kind]


def outcome(path, content, messages=None):
    """Texts, or None where the file was refused in one line that names it."""
    path.write_bytes(content)
    text = Text("corpora.c", TextSource(files=(str(path),), messages=messages), {})
    try:
        text.identity()
        if messages is None:
            found = ["".join(document) for document in text.in_parts()]
        else:
            found = ["".join(talk.contents) for talk in text.conversations()]
    except CorpusError as error:
        words = str(error)
    else:
        assert all(document.encode() or not document for document in found)
        return found
    assert str(path) in words
    assert len(words.splitlines()) == 1
    return None


@few_or_many
@pytest.mark.parametrize("name", FORMATS)
def test_damage_of_any_kind_is_one_line(name, examples, tmp_path):
    draw = random.Random(name)
    seen = Counter()
    for number in range(examples):
        end = "" if name.endswith(TABLES) else draw.choice(ENDS)
        content = FORMATS[name](DOCUMENTS)
        content = COMPRESSIONS[end](content) if end else content
        found = outcome(tmp_path / f"{number}-{name}{end}", damaged(content, draw))
        seen["refused" if found is None else "read"] += 1
    assert seen["refused"] > 0


@few_or_many
@pytest.mark.parametrize("name", TALK_FORMATS)
def test_damaged_conversations_are_one_line(name, examples, tmp_path):
    content, draw = TALK_FORMATS[name](TALKS), random.Random(name)
    paths = (tmp_path / f"{number}-{name}" for number in range(examples))
    found = [outcome(path, damaged(content, draw), messages="talk") for path in paths]
    assert None in found


@few_or_many
@pytest.mark.parametrize("end", [".gz", ".xz", ".bz2"])
def test_what_has_a_checksum_gives_the_right_documents_or_none(end, examples, tmp_path):
    content = COMPRESSIONS[end](json_lines(DOCUMENTS))
    draw = random.Random(end)
    seen = Counter()
    for number in range(examples):
        changed = damaged(content, draw)
        found = outcome(tmp_path / f"{number}.jsonl{end}", changed)
        # What follows the last stream is not looked at by every tool.
        assert found in (None, DOCUMENTS), changed
        seen[found is None] += 1
    assert seen[True] > examples / 2


@pytest.mark.parametrize("end", COMPRESSIONS)
def test_a_compressed_file_that_is_cut_short_is_refused_wherever_it_ends(end, tmp_path):
    content = COMPRESSIONS[end](json_lines(DOCUMENTS))
    for length in range(len(content)):
        assert outcome(tmp_path / f"a.jsonl{end}", content[:length]) is None, length
    assert outcome(tmp_path / f"a.jsonl{end}", content) == DOCUMENTS
