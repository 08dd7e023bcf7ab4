"""Installed distributions: to which one a module belongs, and which of them mbench requires."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

DISTRIBUTION = "mbench"

_HEADER = re.compile(r"^(Name|Version|Requires-Dist):(.*)$", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@cache
def distribution_of(top: str) -> str:
    """The installed distribution that a module belongs to; empty if none does."""
    try:
        # Most distributions are called what they are imported as; this spares a look at them all.
        return _first(top, "Name")
    except importlib.metadata.PackageNotFoundError:
        return next(iter(_all_modules().get(top, ())), "")


def version_of(distribution: str) -> str:
    """Its installed version; raises `PackageNotFoundError`."""
    return _first(distribution, "Version")


def installed() -> Iterator[str]:
    """`name==version` of all distributions, as their own files say it."""
    for distribution in importlib.metadata.distributions():
        name, version = name_and_version(distribution)
        if name and version:
            yield f"{name}=={version}"


def name_and_version(distribution: importlib.metadata.Distribution) -> tuple[str, str]:
    """As its own file says it; empty where it does not."""
    headers = _headers(distribution)
    return headers.get("Name", [""])[0], headers.get("Version", [""])[0]


def _headers(distribution: importlib.metadata.Distribution) -> dict[str, list[str]]:
    """What its own file says of it, by key."""
    files = ("METADATA", "PKG-INFO", "")  # the last where it is a single file
    text = next(filter(None, map(distribution.read_text, files)), "")
    headers: dict[str, list[str]] = {}
    # Read by hand: the parser of whole messages takes half a second for an environment.
    for key, value in _HEADER.findall(text.partition("\n\n")[0]):
        headers.setdefault(key, []).append(value.strip())
    return headers


@cache
def _headers_of(distribution: str) -> Mapping[str, list[str]]:
    return _headers(importlib.metadata.distribution(distribution))


def _first(distribution: str, key: str) -> str:
    return next(iter(_headers_of(distribution).get(key, ())), "")


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
    return name in _always_required() or name in _required_in_turn()


@cache
def _always_required() -> frozenset[str]:
    """What mbench itself requires whatever the extras and the machine, as most of it."""
    lines = [line for line in _requirements(DISTRIBUTION) if ";" not in line]
    return frozenset(_normal(found[0]) for line in lines if (found := _NAME.match(line)))


def _requirements(distribution: str) -> Sequence[str]:
    try:
        listed = _headers_of(distribution).get("Requires-Dist")
        return listed or importlib.metadata.requires(distribution) or ()
    except importlib.metadata.PackageNotFoundError:
        return ()


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

    names: set[str] = set()
    for requirement in map(Requirement, _requirements(distribution)):
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
