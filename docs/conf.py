"""Settings of the site: `tox -e docs` builds it from these Markdown files and from docstrings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import generated_pages  # noqa: E402

import mbench  # noqa: E402

project = "mbench"
release = mbench.__version__
project_copyright = "the authors of mbench"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"mbench {release}"
html_copy_source = False


def setup(app: Any) -> None:
    """Write the generated pages before Sphinx looks for its files; show links to code as paths."""
    generated_pages.write(HERE / "generated")
    app.connect("source-read", _paths_of_the_repository)


def _paths_of_the_repository(app: Any, name: str, source: list[str]) -> None:
    source[0] = generated_pages.without_links_to_code(source[0])
