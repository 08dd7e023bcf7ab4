"""What is installed is what the repository holds: packages, their sentences, and the version."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata

import mbench
from helpers.places import ROOT
from helpers.source_tree import sentence

SETTINGS = configparser.ConfigParser()
SETTINGS.read(ROOT / "setup.cfg")
PLACES = {
    name.strip(): place.strip()
    for name, _, place in (
        line.partition("=") for line in SETTINGS["options"]["package_dir"].split("\n") if line
    )
}
"""Package -> its folder, where it is not the one of that name."""


def folder(package):
    top, *rest = package.split(".")
    return ROOT.joinpath(PLACES.get(top, top), *rest)


def test_every_package_is_installed():
    listed = SETTINGS["options"]["packages"].split()
    tops = {folder(package) for package in listed if "." not in package}
    assert {folder(package) for package in listed} == {
        path.parent for top in tops for path in top.rglob("__init__.py")
    }


def test_a_package_says_one_sentence_and_does_nothing():
    """What runs on import of a folder could hide a circle from the contracts."""
    for package in SETTINGS["options"]["packages"].split():
        path = folder(package) / "__init__.py"
        assert sentence(path.parent).endswith("."), path
        if package not in ("mbench", "mbench.cli", "mbench.testing"):
            assert len(ast.parse(path.read_text(encoding="utf-8")).body) == 1, path


def test_the_version_is_stated_once():
    assert importlib.metadata.version("mbench") == mbench.__version__, "install mbench again"
    assert SETTINGS["metadata"]["version"] == "attr: mbench.__version__"
    headings = [
        line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line[:3] == "## "
    ]
    assert headings[0].startswith(f"## {mbench.__version__},")
