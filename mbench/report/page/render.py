"""From the view model to one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mbench.core.results import Results
from mbench.report.page import libraries
from mbench.report.page.terms import term_of
from mbench.report.page.view import page
from mbench.report.statistics.boards import GroupBoards
from mbench.report.tables.panels import ShownPanel
from mbench.report.tables.published import Published, load_published, shipped_figures
from mbench.report.words import visible
from mbench.storage.store import write_atomically

TEMPLATES = Path(__file__).parent.parent / "templates"


def render(
    results: Results,
    directory: str | Path,
    panels: Sequence[ShownPanel] = (),
    found: Sequence[GroupBoards] | None = None,
) -> Path:
    """Write `index.html` into `directory` and return its path; equal results give equal bytes.

    Figures of papers are those that come with mbench and those of `published/*.yaml` beside
    `directory`, which take the place of ours of the same file name. `found` is what `boards` finds
    in the results, where that is known already.
    """
    path = Path(directory) / "index.html"
    published = load_published(shipped_figures(), path.resolve().parent.parent / "published")
    content = to_html(results, panels, published, found).encode()
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
    return path


def to_html(
    results: Results,
    panels: Sequence[ShownPanel] = (),
    published: Sequence[Published] = (),
    found: Sequence[GroupBoards] | None = None,
) -> str:
    """The page as text. Everything that comes from the results is escaped."""
    template = environment().get_template("report.html.j2")
    return template.render(page=page(results, published, found), panels=panels)


def environment() -> Environment:
    """The templates, which escape whatever is put into them."""
    environment = Environment(
        loader=PackageLoader("mbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_visible,
    )
    environment.globals["asset"] = _asset
    environment.globals["packed"] = libraries.packed
    environment.globals["credit"] = libraries.credit
    environment.globals["term_of"] = term_of
    environment.filters["data_uri"] = _data_uri
    return environment


def _visible(value: Any) -> Any:
    """Text that is not markup, with its control characters shown."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _data_uri(text: str) -> str:
    """A CSV file as an address."""
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode()


def _asset(name: str) -> Markup:
    """One of our own style or script files, to be inlined as it is."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))
