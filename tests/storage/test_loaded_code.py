"""What old code computes is never kept under the key of the file that took its place."""

from __future__ import annotations

import importlib
import os
import sys
import time

import pytest

from mbench.core.errors import PluginError
from mbench.storage.source_code import source_of_loaded

OLD = "import zz_part\nPOWER = 2\ndef score():\n    return zz_part.one() ** POWER\n"
PART = "def one():\n    return 1\n"


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """Module `zz_whole` of this process, which imports `zz_part`; both lie in a folder."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "zz_whole.py").write_text(OLD)
    (tmp_path / "zz_part.py").write_text(PART)
    yield importlib.import_module("zz_whole"), tmp_path
    for name in ("zz_whole", "zz_part"):
        sys.modules.pop(name, None)


def edit(path, old, new):
    path.write_text(path.read_text().replace(old, new))
    later = time.time() + 10
    os.utime(path, (later, later))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("zz_whole", "** POWER", "* POWER"), ("zz_part", "return 1", "return 2")],
)
@pytest.mark.parametrize("asked_before", [True, False])
def test_an_edited_function_is_noticed_until_it_is_loaded_again(
    loaded, name, old, new, asked_before
):
    module, folder = loaded
    before = source_of_loaded([module]).sha256 if asked_before else None
    edit(folder / f"{name}.py", old, new)
    with pytest.raises(PluginError, match=rf"{name}\.py was edited after it was loaded"):
        source_of_loaded([module])
    importlib.reload(sys.modules[name])
    assert source_of_loaded([module]).sha256 != before


def test_an_edited_value_is_noticed_once_the_source_was_asked_for(loaded):
    module, folder = loaded
    source_of_loaded([module])
    edit(folder / "zz_whole.py", "POWER = 2", "POWER = 3")
    with pytest.raises(PluginError, match="was edited after it was loaded"):
        source_of_loaded([module])


def test_a_file_that_is_only_touched_is_as_it_was(loaded):
    module, folder = loaded
    before = source_of_loaded([module])
    edit(folder / "zz_part.py", "x", "x")
    assert source_of_loaded([module]) == before
