"""Suites by name: a file comes first, and where two could be meant a note says which it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from helpers.places import ROOT
from mbench.core.errors import SuiteError
from mbench.plan.shipped import find_suite, shipped_suites

QUICKSTART = ROOT / "suites" / "quickstart.yaml"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_suite_of_the_repository_is_known_by_its_own_name():
    files = {path.stem: path for path in (ROOT / "suites").glob("*.yaml")}
    assert {name: path.read_bytes() for name, path in shipped_suites().items()} == {
        name: path.read_bytes() for name, path in files.items()
    }
    # The report's folder has the name by which the suite was asked for.
    assert all(yaml.safe_load(p.read_text())["name"] == name for name, p in files.items())


def test_a_name_works_in_an_empty_folder():
    found, note = find_suite(Path("quickstart"))
    assert (found.read_bytes(), note) == (QUICKSTART.read_bytes(), "")


def test_a_file_comes_before_a_name_and_a_folder_does_not():
    Path("paper").mkdir()
    assert find_suite(Path("paper")) == (shipped_suites()["paper"], "")
    Path("quickstart").write_text("name: mine")
    found, note = find_suite(Path("quickstart"))
    assert found.read_text() == "name: mine"
    assert note == "quickstart is the file here, not the suite of that name that comes with mbench"


def test_a_copy_beside_is_only_meant_by_its_path():
    copy = Path("quickstart.yaml")
    copy.write_text("name: mine")
    assert find_suite(copy) == (copy, "")
    found, note = find_suite(Path("quickstart"))
    assert found == shipped_suites()["quickstart"]
    assert note == (
        "quickstart is the suite that comes with mbench; say quickstart.yaml for the file here"
    )


def test_an_unknown_name_says_which_are_known():
    with pytest.raises(SuiteError) as caught:
        find_suite(Path("quikstart"))
    assert "unknown suite 'quikstart'; did you mean 'quickstart'? (valid: " in str(caught.value)
    assert all(name in str(caught.value) for name in shipped_suites())


@pytest.mark.parametrize("path", ["none.yaml", "suites/paper", "./x/y.yml", "."])
def test_what_is_a_path_is_left_to_be_read(path):
    assert find_suite(Path(path)) == (Path(path), "")
