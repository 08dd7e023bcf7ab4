"""Plugins are found, broken ones are survived and named, and every hook is documented."""

from __future__ import annotations

import ast
import inspect

import pytest

from helpers.places import ROOT
from mbench.core import hookspecs
from mbench.core.errors import SuiteError
from mbench.plan.plugin_loading import load_registry

GOOD = '''
import mbench

class Frequency(mbench.Scorer):
    """How often an expert is used."""
    name = "frequency"
    needs = (mbench.RoutingSums(),)
    def score(self, profile):
        return profile.sums(mbench.RoutingSums())["count"]

@mbench.hookimpl
def mbench_components():
    return [Frequency]

@mbench.hookimpl
def mbench_methods():
    return [mbench.Method("frequency", scorer="frequency", corpora=1)]
'''


def load(tmp_path, source):
    path = tmp_path / "mine.py"
    path.write_text(source)
    return load_registry([path])


def test_a_single_file_is_a_plugin(tmp_path):
    registry = load(tmp_path, GOOD)
    assert registry.failures == []
    assert registry.methods["frequency"].scorer == "frequency"
    assert registry.origins["scorer", "frequency"].distribution == str(tmp_path / "mine.py")
    assert {"random", "reap", "expert-sparsity", "tb-coverage"} <= set(registry.methods)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nothing_of_that_name", "mine.py:1"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def f(:", "mine.py:1"),
        ("x = 1", "implements no mbench hook"),
        (GOOD.replace("def score", "def scor"), "does not implement score"),
        (GOOD.replace("return [Frequency]", "return [int]"), "not a Scorer, Selector"),
        (GOOD.replace("def mbench_components", "def mbench_component"), "unknown hook"),
        (
            GOOD.replace("return [Frequency]", "return Frequency"),
            "mbench_components must return a list",
        ),
        (GOOD.replace('"frequency"\n', '"reap"\n'), "'reap' is already registered by reap"),
        (
            GOOD.replace('Method("frequency"', 'Method("reap"'),
            "'reap' is already registered by reap",
        ),
        (GOOD.replace("needs =", "class Params:\n        p = 2\n    needs ="), "mbench.Parameters"),
        (
            GOOD.replace("@mbench.hookimpl\ndef mbench_methods", "def mbench_methods"),
            "lacks @mbench",
        ),
    ],
)
def test_a_broken_plugin_stops_nothing(tmp_path, source, reason):
    registry = load(tmp_path, source)
    (failure,) = registry.failures
    assert reason in failure.reason
    assert "mine.py" in failure.plugin
    assert "\n" not in failure.reason
    assert registry.methods["reap"].name == "reap"
    assert "frequency" not in {*registry.methods, *registry.components["scorer"]}


def test_a_missing_file_stops_at_once(tmp_path):
    (tmp_path / "mine.py").write_text("")
    with pytest.raises(SuiteError, match=r"mien.py: no such file; did you mean '.*mine.py'\?"):
        load_registry([tmp_path / "mien.py"])


def test_every_hook_is_documented_and_used():
    hooks = [
        (name, function)
        for name, function in inspect.getmembers(hookspecs, inspect.isfunction)
        if name.startswith("mbench_")
    ]
    sources = [*(ROOT / "plugins").rglob("*.py"), *(ROOT / "mbench").rglob("*.py")]
    sources.append(ROOT / "tests/report/page/test_panels.py")
    implemented = "".join(path.read_text() for path in sources if path.name != "hookspecs.py")
    for name, function in hooks:
        assert inspect.getdoc(function), name
        assert f"def {name}(" in implemented, name


def test_plugins_import_only_public_names():
    for path in (ROOT / "plugins").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            private = [name for name in names if name.startswith("mbench.")]
            assert private == [], f"{path.name} imports {private}"


WORDS = ("mean", "max", "random", "shape")
"""Methods whose names mean something else, too."""


def test_the_core_names_no_method():
    names = [name for name in load_registry().methods if name not in WORDS]
    for path in (ROOT / "mbench").rglob("*.py"):
        text = path.read_text()
        found = [name for name in names if f'"{name}"' in text]
        assert found == [], f"{path.name} names {found}"
