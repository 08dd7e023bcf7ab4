"""Where the files of lm-eval's own tasks are, found by their text and without importing lm-eval."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_DEFINED = re.compile(
    r"^['\"]?(?:task|group)['\"]?[ \t]*:[ \t]*([^\s#].*?)[ \t]*(?:#.*)?$", re.MULTILINE
)
_TAGGED = re.compile(r"^['\"]?tag['\"]?[ \t]*:(.*(?:\n[ \t]*-.*)*)", re.MULTILINE)
_INCLUDED = re.compile(r"^['\"]?include['\"]?[ \t]*:(.*(?:\n[ \t]*-.*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Index:
    """The names that lm-eval brings along."""

    files: Mapping[str, tuple[Path, ...]]
    """Task or group -> the files that may define it, in the order in which lm-eval reads them."""
    tags: Mapping[str, tuple[Path, ...]]
    """Tag -> the files that may bear it; templates that others include are among them."""
    including: Mapping[str, tuple[Path, ...]]
    """Name of a file -> the files that include one of that name."""

    @property
    def names(self) -> frozenset[str]:
        """All tasks, groups and tags."""
        return frozenset({*self.files, *self.tags})

    def tagged(self, tag: str) -> list[Path]:
        """The files that may bear a tag, be it because of what they include."""
        reached: dict[Path, None] = {}
        pending = list(self.tags.get(tag, ()))
        while pending:
            path = pending.pop()
            if path not in reached:
                reached[path] = None
                pending += self.including.get(path.name, ())
        return sorted(path for path in reached if path.suffix == ".yaml")


@cache
def index() -> Index:
    """Of the installed lm-eval; takes about a second."""
    package = importlib.util.find_spec("lm_eval")
    places = (package and package.submodule_search_locations) or []
    files: dict[str, list[Path]] = {}
    tags: dict[str, list[Path]] = {}
    including: dict[str, list[Path]] = {}
    for path in sorted(path for place in places for path in Path(place, "tasks").rglob("*")):
        # Files without a suffix are templates that others include; some hold the tags.
        if path.suffix not in ("", ".yaml") or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        for name in _DEFINED.findall(text):
            files.setdefault(name.strip("'\""), []).append(path)
        for tag in _listed(_TAGGED, text):
            tags.setdefault(tag, []).append(path)
        for included in _listed(_INCLUDED, text):
            including.setdefault(Path(included).name, []).append(path)
    return Index(*({k: tuple(v) for k, v in each.items()} for each in (files, tags, including)))


def _listed(pattern: re.Pattern[str], text: str) -> set[str]:
    """The words of a YAML list, or its only one."""
    blocks = pattern.findall(text)
    items = (re.sub(r"^[ \t]*-|#.*$", "", block, flags=re.MULTILINE) for block in blocks)
    return {word for item in items for word in re.findall(r"[^\s,\[\]'\"]+", item)}
