"""The suites that come with mbench, known by name wherever mbench is installed."""

from __future__ import annotations

import importlib.resources
import os
from pathlib import Path

from mbench.core.errors import SuiteError, unknown


def shipped_suites() -> dict[str, Path]:
    """name -> file of every suite that comes with mbench, by name."""
    folder = Path(str(importlib.resources.files("mbench_suites")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_suite(given: Path) -> tuple[Path, str]:
    """The file that a path or a name means; with a sentence, or "", where two files could be meant.

    A file of that path comes first, then the suite of that name. A path that leads nowhere is
    returned as it is, for the error of reading it; `SuiteError` for a name that nothing has.
    """
    name, shipped = str(given), shipped_suites()
    # Unlike Path's own methods these raise nothing, whatever the path.
    if os.path.isfile(given):
        also = f"{name} is the file here, not the suite of that name that comes with mbench"
        return given, also if name in shipped else ""
    if name in shipped:
        here = Path(f"{name}.yaml")
        also = f"{name} is the suite that comes with mbench; say {here} for the file here"
        return shipped[name], also if here.is_file() else ""
    if len(given.parts) == 1 and not given.suffix and not os.path.lexists(given):
        raise SuiteError(unknown("suite", name, shipped) + "; or give the path of a file")
    return given, ""
