"""Renders the view model as one self-contained HTML file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mbench.core.clean_text import visible
from mbench.report.figures_of_papers import Published, load_published, shipped_figures
from mbench.report.page import libraries
from mbench.report.page.part import BLOCKS, Part
from mbench.report.page.score_maps import MAPS, maps_script, score_maps
from mbench.report.page.terms import term_of
from mbench.report.page.view import page
from mbench.report.statistics.boards import RunBoards
from mbench.storage.atomic import write_text_atomically
from mbench.storage.report_folder import PAGE

TEMPLATES = Path(__file__).parent.parent / "templates"


def render(run: RunBoards, directory: str | Path, panels: Sequence[Part] = ()) -> Path:
    """Write `index.html` into `directory` and return its path; equal results give equal bytes.

    Beside it lies the file that its score maps are loaded from.

    Figures of papers are those that come with mbench and those of `published/*.yaml` beside
    `directory`, which replace ours of the same file name.
    """
    path = Path(directory) / PAGE
    papers = load_published(shipped_figures(), path.resolve().parent.parent / "published")
    write_text_atomically(path, to_html(run, papers, panels))
    if score_maps(run) is not None:
        write_text_atomically(path.with_name(MAPS), maps_script(run))
    return path


def to_html(run: RunBoards, papers: Sequence[Published] = (), panels: Sequence[Part] = ()) -> str:
    """The page as text. Everything that comes from the results is escaped."""
    template = environment().get_template("report.html.j2")
    return template.render(page=page(run, papers, panels))


def environment() -> Environment:
    """The environment of the templates, with escaping on."""
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
    environment.filters["packed_text"] = _packed_text
    environment.filters["packed_json"] = _packed_json
    for kind in BLOCKS:
        environment.tests[f"a_{kind.__name__.lower()}"] = _is_a(kind)
    return environment


def _is_a(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kind)


def _visible(value: Any) -> Any:
    """Make control characters visible in any text that is not markup."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _packed_text(text: str) -> str:
    return libraries.compressed(text.encode())


def _packed_json(value: object) -> str:
    """JSON, compressed, in base64: a page of many methods is a quarter of its size."""
    text = json.dumps(_all_visible(value), separators=(",", ":"), allow_nan=False)
    return libraries.compressed(text.encode())


def _all_visible(value: Any) -> Any:
    if isinstance(value, dict):
        return {visible(key): _all_visible(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        # Most lists are figures, of which a page of many methods has a million.
        return value if _figures(value) else [_all_visible(own) for own in value]
    return visible(value) if isinstance(value, str) else value


def _figures(values: Sequence[Any]) -> bool:
    return bool(values) and all(value is None or isinstance(value, float) for value in values)


def _asset(name: str) -> Markup:
    """A style sheet or script of our own, inlined unescaped."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))
