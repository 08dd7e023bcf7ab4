"""Numbers the experts anew that a quantised checkpoint's settings name.

Settings list modules that are stored as plain numbers (`ignore`, `modules_to_not_convert`,
`exclude_modules`, ...) or in another precision, by name or by a pattern. A list is found by what it
holds and not by what it is called, so that every form's are.
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mbench.core.errors import UnsupportedModel
from mbench.moe.checkpoint_tensors import Place

NAMES_EXPERT = re.compile(r"\bexperts?(\.|\\\.)\d+\b")
PATTERN = re.compile(r"^(re|[-+]):|[*?\[\]|()^$\\+]")
"""What no module's name has: of compressed-tensors (`re:`), GPTQModel (`-:`, `+:`) and wildcards.
"""


class NumberedNames:
    """The names of experts' modules in a full checkpoint, and in a pruned one."""

    def __init__(self, places: Iterable[Place], keep: np.ndarray) -> None:
        """`keep`, bool [L, N], are the experts of each layer that are left."""
        self._new: dict[str, str | None] = {}
        """Module or tensor of an expert -> its name in the pruned checkpoint; None: it is gone."""
        kept = [np.flatnonzero(row).tolist() for row in keep]
        for place in places:
            if place.expert is not None and place.layer is not None:
                left = kept[place.layer]
                is_kept = place.expert in left
                new = place.renumbered(left.index(place.expert)) if is_kept else None
                self._add(place.name, new)
            elif not place.is_used and NAMES_EXPERT.search(place.name):
                self._add(place.name, None)

    def _add(self, name: str, new: str | None) -> None:
        """The tensor and the modules around it, up to the expert."""
        while name not in self._new:
            self._new[name] = new
            if name.rpartition(".")[2].isdecimal():
                return
            name, new = name.rpartition(".")[0], new and new.rpartition(".")[0]

    def rewritten(self, settings: Any) -> Any:
        """Settings (of JSON) with the experts' new numbers, and without those that are gone.

        Raises `UnsupportedModel` for a name that is no known expert's, and for a pattern that would
        choose others of the kept experts than before.
        """
        if isinstance(settings, Mapping):
            named = {key: self._renamed(key) for key in settings}
            return {
                new: self.rewritten(settings[key]) for key, new in named.items() if new is not None
            }
        if isinstance(settings, list):
            return [
                new if isinstance(each, str) else self.rewritten(each)
                for each in settings
                if not isinstance(each, str) or (new := self._renamed(each)) is not None
            ]
        if isinstance(settings, str) and NAMES_EXPERT.search(settings):
            raise UnsupportedModel(
                f"its quantization settings have {settings!r}, whose expert cannot be numbered anew"
            )
        return settings

    def _renamed(self, entry: str) -> str | None:
        """A name or pattern in the pruned checkpoint; None: it is gone."""
        if entry in self._new:
            return self._new[entry]
        if PATTERN.search(entry):
            self._refuse_moved(entry)
        elif NAMES_EXPERT.search(entry):
            raise UnsupportedModel(
                f"its quantization settings name {entry!r}, which is no expert of the checkpoint,"
                " so that it cannot be numbered anew"
            )
        return entry

    def _refuse_moved(self, pattern: str) -> None:
        """A pattern stays as it is where it chooses the same experts under their new numbers."""
        text = re.sub(r"^(re|[-+]):", "", pattern)
        readings = [re.compile(fnmatch.translate(text)).match]
        with contextlib.suppress(re.error):
            # Programs differ in whether a match may begin inside a name.
            readings += [re.compile(text).match, re.compile(text).search]
        for old, new in self._new.items():
            for holds in readings:
                if new is not None and bool(holds(old)) != bool(holds(new)):
                    raise UnsupportedModel(
                        f"its quantization settings have the pattern {pattern!r}, which tells"
                        f" experts apart by their numbers: it would not hold for {new} as it does"
                        f" for {old}, which becomes it"
                    )
