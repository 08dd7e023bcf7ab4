"""Installed distributions: to which one a module belongs, and which of them mbench requires."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

DISTRIBUTION = "mbench"

_HEADER = re.compile(r"^(Name|Version):(.*)$", re.MULTILINE)


@cache
def distribution_of(top: str) -> str:
    """The installed distribution that a module belongs to; empty if none does."""
    try:
        # Most distributions are called what they are imported as; this spares a look at them all.
        return importlib.metadata.distribution(top).name
    except importlib.metadata.PackageNotFoundError:
        return next(iter(_all_modules().get(top, ())), "")


@cache
def version_of(distribution: str) -> str:
    """Its installed version."""
    return importlib.metadata.version(distribution)


def installed() -> Iterator[str]:
    """`name==version` of all distributions, as their own files say it."""
    for distribution in importlib.metadata.distributions():
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        # Read by hand: the parser of whole messages takes half a second for an environment.
        headers = dict(_HEADER.findall(text.partition("\n\n")[0]))
        if "Name" in headers and "Version" in headers:
            yield f"{headers['Name'].strip()}=={headers['Version'].strip()}"


@cache
def place_of(distribution: str) -> Path:
    """The folder that it is installed in."""
    return Path(str(importlib.metadata.distribution(distribution).locate_file("")))


@cache
def _all_modules() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


@cache
def is_required(distribution: str) -> bool:
    """Whether mbench requires a distribution, directly or through others."""
    name = _normal(distribution)
    return name in _required_by(DISTRIBUTION, "") or name in _required_in_turn()


@cache
def _required_in_turn() -> frozenset[str]:
    names: set[str] = set()
    pending = [DISTRIBUTION]
    while pending:
        for name in _required_by(pending.pop(), "") - names:
            names.add(name)
            pending.append(name)
    return frozenset(names)


@cache
def _required_by(distribution: str, extra: str) -> frozenset[str]:
    """What one distribution requires, and what the extras that it asks for require."""
    from packaging.requirements import Requirement

    try:
        lines = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return frozenset()
    names: set[str] = set()
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            names.add(_normal(requirement.name))
            for each in requirement.extras:
                names |= _required_by(requirement.name, each)
    return frozenset(names)


def _normal(distribution: str) -> str:
    """The one spelling of a distribution's name."""
    return re.sub("[-_.]+", "-", distribution).lower()


@cache
def top_level(distribution: str) -> frozenset[str]:
    """What a distribution is imported as."""
    try:
        text = importlib.metadata.distribution(distribution).read_text("top_level.txt")
    except importlib.metadata.PackageNotFoundError:
        text = None
    return frozenset((text or "").split())
