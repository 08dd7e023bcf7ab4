"""Pages of results, as a report writes them."""

from __future__ import annotations

import functools

from helpers.synthetic import paper_sized
from mbench.report.page.render import render, to_html
from mbench.report.statistics.boards import boards


def html_of(results, papers=(), panels=()):
    return to_html(boards(results), papers, panels)


def render_page(results, directory):
    return render(boards(results), directory)


@functools.cache
def paper_boards():
    """Of stand-in results in the shape of suites/paper.yaml: it takes seconds, so it is made once.

    The first group is qwen, the second deepseek.
    """
    return boards(paper_sized(items=25))
