"""Writes the tree of CONTRIBUTING.md: every package with the sentence of its `__init__.py`.

`PYTHONPATH=tests python -m helpers.source_tree`
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

from helpers.places import ROOT

TOP = ("mbench", "plugins", "suites", "reports")
"""The folders of the repository that hold packages."""

COLUMN = 24


def tree() -> str:
    """A line for every package, in the order in which they import each other."""
    inits = (path for place in TOP for path in (ROOT / place).rglob("__init__.py"))
    folders = sorted((path.parent for path in inits), key=_place)
    return "".join(_line(folder) + "\n" for folder in folders)


def sentence(folder: Path) -> str:
    """The first line of a package's docstring."""
    module = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(module) or "").partition("\n")[0]


def _line(folder: Path) -> str:
    place = folder.relative_to(ROOT)
    # The two folders of data files stand in no other package.
    alone = place.parts[0] in ("suites", "reports")
    name = f"{place}/" if alone else "  " * (len(place.parts) - 1) + f"{place.name}/"
    return f"{name:{COLUMN}}{sentence(folder)}"


def _place(folder: Path) -> list[int]:
    """Where a folder stands: as in the contracts of layers, lowest first."""
    layers = [*TOP, *_layers()]
    return [layers.index(p) if p in layers else -1 for p in folder.relative_to(ROOT).parts]


def _layers() -> Iterator[str]:
    """The folders and modules of the contracts of layers, lowest first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for contract in settings["tool"]["importlinter"]["contracts"]:
        for layer in reversed(contract.get("layers", [])):
            yield from layer.replace(" ", "").split("|")


if __name__ == "__main__":
    print(tree(), end="")
