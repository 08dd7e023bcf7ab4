"""From the view model to one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mbench.report.figures import page
from mbench.report.panels import ShownPanel
from mbench.results import Results
from mbench.store import write_atomically

HERE = Path(__file__).parent


def render(results: Results, directory: str | Path, panels: Sequence[ShownPanel] = ()) -> Path:
    """Write `index.html` into `directory` and return its path; equal results give equal bytes."""
    path = Path(directory) / "index.html"
    content = to_html(results, panels).encode()
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
    return path


def to_html(results: Results, panels: Sequence[ShownPanel] = ()) -> str:
    """The page as text. Everything that comes from the results is escaped."""
    template = environment().get_template("report.html.j2")
    return template.render(page=page(results), panels=panels)


def environment() -> Environment:
    """The templates, which escape whatever is put into them."""
    environment = Environment(
        loader=PackageLoader("mbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["asset"] = _asset
    return environment


def _asset(name: str) -> Markup:
    """One of our own style or script files, to be inlined as it is."""
    return Markup((HERE / "templates" / name).read_text(encoding="utf-8"))
