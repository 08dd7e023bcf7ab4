"""`mbench new`: what it writes works as it is, and nothing is written over."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from functools import partial

import pytest

from helpers.command import call
from helpers.held import LONG


@pytest.fixture
def new(tmp_path):
    """`mbench new` in an empty folder."""
    return partial(call, "new", cwd=tmp_path, store=tmp_path / "s")


def installed(folder):
    """Put beside a package's module what an installation in place would: its entry points."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    about = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in points.items()))
    ]
    (about / "entry_points.txt").write_text("\n".join(lines))


def test_a_new_plugin_passes_its_own_tests(new, tmp_path):
    made = new("plugin", "gate-total")
    assert made.returncode == 0, made.stderr
    assert "pip install -e './gate-total[test]' && python -m pytest gate-total" in made.stdout
    folder = tmp_path / "gate-total"
    installed(folder)
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    run = partial(
        subprocess.run, cwd=folder, env=environment, capture_output=True, text=True, timeout=LONG
    )
    tests = run([sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"])
    assert tests.returncode == 0, tests.stdout
    assert " passed, 3 skipped" in tests.stdout
    listed = run([sys.executable, "-m", "mbench", "plugins"])
    assert "method     gate-total               gate-total 0.1.0" in listed.stdout


def test_the_method_of_a_new_plugin_is_20_lines(new, tmp_path):
    new("plugin", "gate-total")
    lines = (tmp_path / "gate-total" / "gate_total.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 20


@pytest.mark.parametrize("name", ["mine", "true"])
def test_a_new_suite_is_as_it_should_be(new, tmp_path, name):
    made = new("suite", name)
    assert made.returncode == 0, made.stderr
    checked = call("check", f"{name}.yaml", cwd=tmp_path, store=tmp_path / "s")
    assert checked.returncode == 0, checked.stderr
    assert f"{name}.yaml: ok, 12 cells, 3 tasks ({name})" in checked.stdout


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("plugin Gate_x", "valid are lower-case letters, digits and single hyphens"),
        ("plugin ../up", "valid are lower-case letters"),
        ("plugin class", "Python has a module or a word 'class' already"),
        ("plugin numpy", "Python has a module or a word 'numpy' already"),
        ("plugin true", "Python has a module or a word 'true' already"),
        ("plugin setup", "'setup' has a meaning of its own in a package or its tests"),
        ("plugin synthetic-model", "'synthetic_model' has a meaning of its own"),
        ("plugin pyyaml", "a package 'PyYAML' is installed already"),
        ("plugin reap", "method 'reap' is already registered by reap"),
        ("plugin there", "there exists already: nothing is written over it"),
        ("suite ../up", "valid are letters, digits, dots, hyphens and underscores"),
        ("suite quickstart", "a suite 'quickstart' comes with mbench"),
        ("suite there", "there.yaml exists already"),
        ("thing x", "'thing' is not one of"),
    ],
)
def test_bad_names_and_what_exists_are_refused_in_one_line(new, tmp_path, words, error):
    (tmp_path / "there").mkdir()
    (tmp_path / "there.yaml").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    refused = new(*words.split())
    assert refused.returncode == 2
    assert error in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there.yaml").read_text() == "mine"
