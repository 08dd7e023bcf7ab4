"""What verbs print reads well on a terminal, and is one line for each thing where it is none."""

import re
import sys

import pytest
from rich.console import Console

from mbench.cli.display import LiveBar
from mbench.cli.output import say

LINE = "corpora.bible  documents  fine  " + "one of several words " * 12 + "s3://" + "a" * 70


@pytest.mark.parametrize(("columns", "hang", "inner"), [(80, 32, 32), (80, 60, 2), (50, 2, 2)])
def test_a_long_line_is_broken_between_words(monkeypatch, capsys, columns, hang, inner):
    say(LINE, hang=hang)
    assert capsys.readouterr().out == f"{LINE}\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    say(LINE, hang=hang)
    first, *others = capsys.readouterr().out.splitlines()
    assert " ".join([first, *(line.strip() for line in others)]) == LINE
    assert {len(line) - len(line.lstrip()) for line in others} == {inner}
    assert all(len(line) <= columns for line in [first, *others][:-1])


def test_the_bar_and_the_time_left_stay_whole_in_80_columns():
    bar = LiveBar()
    bar.stage("evaluating demo 50 % pruned, expert-sparsity, on cloze_bible and others")
    bar.total(1000)
    bar.advance(520)
    bar.time_left(19.4)
    (line,) = Console(width=80).render_lines(bar.bars.get_renderable(), pad=False)
    text = "".join(segment.text for segment in line).rstrip()
    assert re.fullmatch(r"\S{12}.{12} +52% 0:00:00 elapsed 19 s left evaluating demo.*…", text)
