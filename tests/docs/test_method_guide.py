"""The files that docs/plugins.md shows: methods pass the kit, tests pass, messages are those."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

import mbench
from helpers.held import LONG
from helpers.places import ROOT
from mbench.testing import CHECKS, ConformanceError, check_method
from mbench.testing.conformance import subjects

GUIDE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
FILES = {
    name: text
    for text, name in re.findall(r"^```python\n(# (\S+)\n.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
}
METHODS = [name for name in FILES if not name.startswith("test_")]
TESTS = [name for name in FILES if name.startswith("test_")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All files of the guide, side by side."""
    folder = tmp_path_factory.mktemp("guide")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def test_every_block_of_python_is_a_file():
    assert GUIDE.count("```python\n") == len(FILES) >= 12


@pytest.mark.parametrize("name", METHODS)
def test_methods_pass_every_check(folder, name):
    for method in subjects(folder / name):
        check_method(folder / name, method)


@pytest.mark.parametrize("name", METHODS)
def test_methods_can_be_tried_as_the_guide_begins(folder, name, tmp_path):
    assert "`mbench run first_look --plugin FILE.py --method NAME`" in GUIDE
    methods = list(subjects(folder / name))
    plan = mbench.plan("first_look", plugins=[folder / name], only=methods, store=tmp_path)
    assert set(plan.cells["method"]) == set(methods)
    assert not plan.cells["problem"].any()


def test_tests_pass(folder):
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LONG,
    )
    assert run.returncode == 0, run.stdout


def test_the_table_has_every_check():
    table = GUIDE.partition("| check | what must hold |")[2].partition("\n\n")[0]
    named = re.findall(
        r"`([a-z-]+)`", "\n".join(row.split("|")[1] for row in table.split("\n")[2:])
    )
    assert sorted(named) == sorted(CHECKS)


def test_the_message_is_what_the_kit_says(folder):
    shown = re.search(r"```text\n(method .*?)```", GUIDE, re.DOTALL)[1]
    file = folder / "mean_gate.py"
    text = FILES["frequency.py"].replace("Frequency", "MeanGate").replace("frequency", "mean-gate")
    sums = "profile.sums(mbench.RoutingSums())"
    mean = f'{sums}["gate"] / {sums}["count"]'
    file.write_text(
        text.replace(
            f'return {sums}["count"]', f'with np.errstate(all="ignore"):\n            return {mean}'
        )
    )
    with pytest.raises(ConformanceError) as caught:
        check_method(file, "mean-gate")
    assert str(caught.value) == shown.strip()


def test_the_readme_has_the_first_one_in_20_lines():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"```python\n{FILES['frequency.py']}```" in readme
    code = [line for line in FILES["frequency.py"].splitlines()[1:] if line.strip()]
    assert len(code) <= 20
