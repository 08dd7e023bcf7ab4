"""Which code and which packages compute what: part of the keys of all that they computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from mbench.core.provenance import release
from mbench.storage.distributions import version_of
from mbench.storage.source_code import Root, Source, code_hash, source_of_loaded

READERS = ("storage/text_files", "storage/texts.py")
"""What reads texts."""

COMPUTED_BY: Mapping[str, tuple[str, ...]] = {
    "statistic": ("moe",),
    "mask": (
        "core/interfaces.py",
        "core/search.py",
        "core/stand_ins.py",
        "run/mask_maker.py",
        "run/stability.py",
    ),
    "recognised": ("moe",),
    "probe": ("evaluate/lm_head.py", "moe", "run/probe.py", "run/probe_passes.py"),
    "evaluation": ("evaluate", "moe"),
    "efficiency": ("moe", "run/footprint.py"),
    "model facts": ("moe",),
    "stored size": ("moe",),
    "task size": ("evaluate",),
    "item texts": ("evaluate",),
    "admission": ("evaluate", "moe", "plan/admission", *READERS),
    "text": READERS,
}
"""Folders and files of mbench whose code computes a kind of thing."""

PACKAGES = ("torch", "transformers")
"""Whose versions are part of the keys of whatever they computed."""


@dataclass(frozen=True)
class Code:
    """What computes: the code of mbench and the versions of packages."""

    hashes: Mapping[str, str]
    """Folder or file of mbench -> sha256 of its content."""
    versions: Mapping[str, str]
    """Without the build's variant such as `+cpu`."""
    source_of: Callable[[Sequence[Root]], Source] = source_of_loaded
    """The source of a component whose code begins there."""

    def remembering(self) -> Code:
        """The same, which reads the source of each component once; for one plan."""
        sources: dict[tuple[Root, ...], Source] = {}

        def remembered(roots: Sequence[Root]) -> Source:
            known = tuple(roots)
            if known not in sources:
                sources[known] = self.source_of(known)
            return sources[known]

        return replace(self, source_of=remembered)

    def of(self, kind: str) -> dict[str, str]:
        """The hashes of the code that computes a kind of thing."""
        return {part: self.hashes[part] for part in COMPUTED_BY[kind]}


@cache
def installed_code(home: Path = Path(__file__).parents[1]) -> Code:
    """The code that runs here and now; `home` is the folder of the package."""
    parts = sorted({part for parts in COMPUTED_BY.values() for part in parts})
    return Code(
        {part: code_hash(home / part) for part in parts},
        {package: release(version_of(package)) for package in PACKAGES},
    )
