"""The file itself: its links, its size, its colours, and that equal results give equal bytes."""

import dataclasses
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

from helpers.pages import render_page
from helpers.places import ROOT
from helpers.synthetic import paper_sized
from mbench.report.charts import style as charts
from mbench.report.page.terms import term_of
from mbench.report.statistics.boards import boards
from mbench.report.tables.leaderboard import leaderboard
from mbench.storage.results_folder import write

TEMPLATES = Path(charts.__file__).parents[1] / "templates"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """(The page of paper-sized results beside their files, the seconds of processor it took)."""
    results = paper_sized(items=25)
    folder = tmp_path_factory.mktemp("paper")
    write(results, folder)
    start = time.process_time()
    return render_page(results, folder), time.process_time() - start


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


def test_links_lead_somewhere_and_headings_skip_no_level(rendered):
    found = Elements(rendered[0].read_text(encoding="utf-8"))
    assert len(found.ids) == len(set(found.ids))
    inner = [link[1:] for link in found.links if link.startswith("#")]
    assert set(inner) <= set(found.ids)
    levels = [int(head[1]) for head in found.heads]
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_every_column_of_a_leaderboard_is_explained():
    whole = paper_sized(items=25)
    cells = tuple(c for c in whole.cells if c.model == "qwen" and c.retain in (0.5, 1.0))
    (board,) = boards(dataclasses.replace(whole, cells=cells)).groups[0].boards
    assert [column.text for column in leaderboard(board).columns if not term_of(column)] == []


def test_the_page_is_small_and_soon_made(rendered):
    path, seconds = rendered
    assert path.stat().st_size < 3_000_000
    assert seconds < 120  # 3 s of it on idle cores, charts included; the bound is for busy ones


def test_equal_files_give_equal_bytes(rendered):
    path, _ = rendered
    once = path.read_bytes()
    # In another process, where hashing of strings is seeded otherwise.
    code = """
        import sys
        from mbench.report.page.render import render
        from mbench.report.statistics.boards import boards
        from mbench.storage.results_folder import read
        render(boards(read(sys.argv[1])), sys.argv[1])
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path.parent)],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "5"},
        cwd=ROOT,
    )
    assert path.read_bytes() == once


def test_marks_contrast_with_the_page_in_both_themes():
    css = (TEMPLATES / "report.css").read_text()
    pairs = dict(re.findall(r"(--\w+): light-dark\(([^)]+)\)", css))
    themes = {
        name: [luminance(colour) for colour in text.split(", ")] for name, text in pairs.items()
    }
    assert sum(name.startswith("--c") for name in themes) == charts.COLOURS
    for name, colours in themes.items():
        if name[2] == "c" or name in ("--link", "--bad", "--quiet", "--mark"):
            needed = 3.0 if name[2] == "c" or name == "--mark" else 4.5
            for back, colour in zip(themes["--back"], colours, strict=True):
                ratio = (max(back, colour) + 0.05) / (min(back, colour) + 0.05)
                assert ratio >= needed, name


def luminance(colour):
    """Relative luminance as WCAG 2 defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
