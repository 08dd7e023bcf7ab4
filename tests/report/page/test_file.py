"""The file itself: its links, its size, its colours, and that equal results give equal bytes."""

import itertools
import os
import re
import subprocess
import sys
import textwrap
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from helpers.places import ROOT
from helpers.synthetic import paper_sized
from mbench.report.charts import style as charts
from mbench.report.page import view as figures
from mbench.report.page.render import render, to_html
from mbench.report.page.terms import term_of
from mbench.storage.results_folder import read, write

TEMPLATES = Path(figures.__file__).parents[1] / "templates"


@pytest.fixture(scope="module")
def results():
    return paper_sized(items=25)


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.heads = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs["href"]] if tag == "a" else []
        self.heads += [tag] if re.fullmatch("h[1-6]", tag) else []


def test_links_lead_somewhere_and_headings_skip_no_level(results):
    found = Elements(to_html(results))
    assert len(found.ids) == len(set(found.ids))
    inner = [link[1:] for link in found.links if link.startswith("#")]
    assert set(inner) <= set(found.ids)
    levels = [int(head[1]) for head in found.heads]
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    # Every column of a leaderboard is explained.
    board = figures.page(results).groups[0].budgets[0].leaderboard
    assert [column.text for column in board.columns if not term_of(column)] == []


def test_size_time_and_determinism(results, tmp_path):
    write(results, tmp_path / "one")
    start = time.process_time()
    path = render(results, tmp_path / "one")
    spent = time.process_time() - start
    once = path.read_bytes()
    assert len(once) < 3_000_000
    assert spent < 12  # 3 s of it on idle cores, charts included; the bound is for busy ones
    code = """
        import sys
        from mbench.report.page.render import render
        from mbench.storage.results_folder import read
        render(read(sys.argv[1]), sys.argv[1])
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "one")],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "5"},
        cwd=ROOT,
    )
    assert path.read_bytes() == once
    assert to_html(read(tmp_path / "one")).encode() == once


def test_marks_contrast_with_the_page_in_both_themes():
    css = (TEMPLATES / "report.css").read_text()
    pairs = dict(re.findall(r"(--\w+): light-dark\(([^)]+)\)", css))
    themes = {
        name: [luminance(colour) for colour in text.split(", ")] for name, text in pairs.items()
    }
    assert sum(name.startswith("--c") for name in themes) == charts.COLOURS
    for name, colours in themes.items():
        if name[2] == "c" or name in ("--link", "--bad", "--quiet", "--band"):
            needed = 3.0 if name[2] == "c" or name == "--band" else 4.5
            for back, colour in zip(themes["--back"], colours, strict=True):
                ratio = (max(back, colour) + 0.05) / (min(back, colour) + 0.05)
                assert ratio >= needed, name


def luminance(colour):
    """Relative luminance as WCAG 2 defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
