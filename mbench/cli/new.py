"""`mbench new`: write the beginnings of a plugin, or of a suite."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

import click

PLUGIN_FILES = {
    "pyproject.toml": "plugin/pyproject.toml.txt",
    "README.md": "plugin/README.md.txt",
    "$module.py": "plugin/module.py.txt",
    "tests/test_$module.py": "plugin/test_module.py.txt",
}
"""Path in the new folder -> template."""

MEANT_FOR_TOOLS = ("conftest", "setup", "tests", "SyntheticModel")
"""Files that pytest and setuptools run, and what is in the new folder already."""

MOST_CHARACTERS = 60
"""Of a name: it becomes part of file names."""


@click.command("new")
@click.argument("kind", type=click.Choice(["plugin", "suite"]), metavar="plugin|suite")
@click.argument("name")
def command(kind: str, name: str) -> None:
    """Write a plugin or a suite called NAME into the current folder, to begin from.

    A plugin is a folder NAME with an installable package: a method, tests that hold it to the
    checks of mbench.testing, and a README. A suite is a file NAME.yaml with comments, which runs
    on the embedded model.
    """
    if kind == "plugin":
        _write_plugin(name)
    else:
        _write_suite(name)


def _write_plugin(name: str) -> None:
    from mbench.core.errors import MbenchError
    from mbench.plan.plugin_loading import load_registry

    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > MOST_CHARACTERS:
        raise MbenchError(
            f"a plugin cannot be called {name[:100]!r}: valid are lower-case letters, digits and"
            " single hyphens, a letter first, e.g. expert-entropy"
        )
    module = name.replace("-", "_")
    if why := _taken(name, module):
        raise MbenchError(f"a plugin cannot be called {name!r}: {why}")
    registry = load_registry()
    for kind in ("method", "scorer"):
        if (kind, name) in registry.origins:
            taken = registry.origins[kind, name].plugin
            raise MbenchError(f"{kind} {name!r} is already registered by {taken}: take another")
    words = {"name": name, "module": module, "class_name": _class_name(name)}
    folder = Path(name)
    _refuse_existing(folder)
    for path, template in PLUGIN_FILES.items():
        _write(folder / Template(path).substitute(words), template, words)
    click.echo(f"{folder}/: a plugin with the method {name!r} and its tests; what next:")
    # The pytest of the same environment, whichever is first on the path.
    click.echo(f"  pip install -e './{folder}[test]' && python -m pytest {folder}")


def _taken(name: str, module: str) -> str:
    """Why a package of this name, with a module of that, could not live beside others."""
    words = (module, _class_name(name))
    if any(map(keyword.iskeyword, words)) or module in sys.stdlib_module_names or find_spec(module):
        return f"Python has a module or a word {module!r} already"
    if module in MEANT_FOR_TOOLS or _class_name(name) in MEANT_FOR_TOOLS:
        return f"{module!r} has a meaning of its own in a package or its tests"
    try:
        # `pip install` would replace that one.
        found = distribution(name)
    except PackageNotFoundError:
        return ""
    return f"a package {found.name!r} is installed already"


def _class_name(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("-"))


def _write_suite(name: str) -> None:
    from mbench.core.errors import MbenchError
    from mbench.plan.shipped import shipped_suites

    stem = name.removesuffix(".yaml")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", stem) or len(stem) > MOST_CHARACTERS:
        raise MbenchError(
            f"a suite cannot be called {name[:100]!r}: valid are letters, digits, dots, hyphens"
            " and underscores, a letter or a digit first"
        )
    if stem in shipped_suites():
        raise MbenchError(
            f"a suite {stem!r} comes with mbench (`mbench suites`): take another name"
        )
    file = Path(f"{stem}.yaml")
    _refuse_existing(file)
    _write(file, "suite.yaml.txt", {"name": stem, "file": str(file)})
    click.echo(f"{file}: a suite for the embedded model; what next:")
    click.echo(f"  mbench run {file}")


def _refuse_existing(path: Path) -> None:
    from mbench.core.errors import MbenchError

    if path.exists() or path.is_symlink():
        raise MbenchError(f"{path} exists already: nothing is written over it")


def _write(path: Path, template: str, words: dict[str, str]) -> None:
    from mbench.core.errors import MbenchError

    text = (files("mbench.cli") / "templates" / template).read_text(encoding="utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template(text).substitute(words), encoding="utf-8")
    except OSError as error:
        raise MbenchError(f"cannot write {path}: {error.strerror}") from error
