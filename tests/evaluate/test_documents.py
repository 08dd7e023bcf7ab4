"""Where documents begin, for records, articles of WikiText and texts that say nothing of it."""

import json
from itertools import pairwise

import numpy as np
import pytest

from helpers.places import ROOT
from mbench.evaluate.documents import Documents, documents_at

DATA = ROOT.parent / "shared" / "data"

LINES = [
    " = First title = \n",
    " \n",
    " Text with = signs = in it . \n",
    " = = A section = = \n",
    " More . \n",
    " = Second = Title = \n",
    " End . \n",
]


def read(records, kind=None, join=""):
    """The documents of each byte, whatever parts the records come in."""
    found = []
    for size in (1, 5, 10**9):
        noted = Documents(kind, join)
        cut = [[text[at : at + size] for at in range(0, len(text), size)] for text in records]
        passed = ["".join(record) for record in noted.read(cut)]
        assert passed == records
        total = len(join.join(records).encode())
        found.append((noted.found, list(documents_at(np.arange(total), noted.begins))))
    assert found[0] == found[1] == found[2]
    kind, numbers = found[0]
    return kind, numbers


def owners(texts):
    return [number for number, text in enumerate(texts) for _ in text.encode()]


def distinct(numbers):
    return np.unique(numbers, return_inverse=True)[1].tolist()


@pytest.mark.parametrize(
    "records", [LINES, ["".join(LINES)], ["".join(LINES[:5]), "".join(LINES[5:])]]
)
def test_articles_are_known_by_their_headings_in_whatever_records(records):
    kind, numbers = read(records)
    assert kind == "wikitext"
    assert distinct(numbers) == owners(["".join(LINES[:5]), "".join(LINES[5:])])


def test_records_are_documents_and_what_joins_them_belongs_to_the_one_before():
    records = ["ein Fuß", "", "日本", " = One title = "]
    kind, numbers = read(records, join="\n\n")
    assert kind == "records"
    assert distinct(numbers) == distinct(owners(["ein Fuß\n\n", "\n\n", "日本\n\n", records[3]]))
    assert set(read(records, "whole", "\n\n")[1]) == {1}
    # What stands before the first heading counts with the first article.
    assert set(read(records, "wikitext")[1]) == {1}


def test_wikitext_2_has_62_articles_as_lines_as_pages_and_as_one_file():
    if not DATA.is_dir():
        pytest.skip(f"needs the sample data in {DATA.name}")
    written = (DATA / "wikitext2_raw_test_pages.jsonl").read_text().splitlines()
    pages = [json.loads(line)["page"] for line in written]
    text = (DATA / "wikitext2_raw_test.txt").read_text()
    expected = {}
    for records in (text.splitlines(keepends=True), [text]):
        noted = Documents(None, "")
        for record in noted.read([record] for record in records):
            assert list(record)
        expected[len(records)] = documents_at(np.arange(len(text.encode())), noted.begins)
        assert noted.found == "wikitext"
    by_lines, by_file = expected.values()
    assert len(pages) == len(set(by_file)) == 62
    assert (by_lines == by_file).all()
    ends = np.cumsum(np.bincount(by_file)[1:]).tolist()
    articles = [text.encode()[at:end].decode() for at, end in pairwise([0, *ends])]
    assert [article.strip() for article in articles] == [page.strip() for page in pages]
