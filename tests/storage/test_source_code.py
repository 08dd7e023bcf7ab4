"""The source of a component is all the code that can decide what it does, and nothing else."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

from mbench.storage.source_code import code_hash, source_of

FILES = {
    "zz_plugin/__init__.py": "",
    "zz_plugin/main.py": (
        "import numpy as np\nfrom . import near, zz_plugin\nfrom .deep.er import f\n"
    ),
    "zz_plugin/near.py": "def g():\n    import zz_lazy\n",
    "zz_plugin/late.py": "",
    "zz_plugin/zz_plugin.py": "import importlib as i\ni.import_module('zz_plugin.late')\n",
    "zz_plugin/unused.py": "",
    "zz_plugin/deep/__init__.py": "from zz_other import helper\n",
    "zz_plugin/deep/er.py": "from ..deep import sibling\nf = 1\n",
    "zz_plugin/deep/sibling.py": "",
    "zz_lazy.py": "",
    "zz_other/__init__.py": "import json, torch\n",
    "zz_other/helper.py": "try:\n    import zz_not_there\nexcept ImportError:\n    pass\n",
    "zz_other/unused.py": "",
    "zz_namespace/part.py": "",
}
REACHED = {
    "zz_plugin/__init__.py",
    "zz_plugin/main.py",
    "zz_plugin/near.py",
    "zz_plugin/deep/__init__.py",
    "zz_plugin/deep/er.py",
    "zz_plugin/deep/sibling.py",
    "zz_lazy.py",
    "zz_plugin/late.py",
    "zz_plugin/zz_plugin.py",
    "zz_other/__init__.py",
    "zz_other/helper.py",
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder like site-packages with a plugin's package and another distribution."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    info = tmp_path / "zz_other-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zz-other\nVersion: 2.5\n")
    (info / "RECORD").write_text("zz_other/__init__.py,,\nzz_other/helper.py,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("zz_")]:
        del sys.modules[name]


def read(place):
    return source_of([importlib.import_module("zz_plugin.main")])


@pytest.mark.parametrize("name", FILES)
def test_an_edit_moves_it_exactly_where_importing_runs_the_file(place, name):
    before = read(place).sha256
    (place / name).write_text(FILES[name] + "\n# edited\n")
    assert (read(place).sha256 != before) == (name in REACHED)


def test_what_mbench_requires_counts_by_version_and_other_distributions_are_named(place):
    distributions = read(place).distributions
    assert distributions["numpy"] == np.__version__
    assert "torch" in distributions  # imported by another distribution, by `zz_other`
    assert "+" not in distributions["torch"]
    assert distributions["zz_not_there"] == "not installed"
    assert "mbench" not in distributions


def test_a_file_that_bears_the_name_of_a_distribution_counts_by_its_content(place):
    (place / "zz_plugin/main.py").write_text("import pyyaml\n")
    (place / "pyyaml.py").write_text("x = 1\n")
    before = read(place)
    (place / "pyyaml.py").write_text("x = 2\n")
    assert read(place).sha256 != before.sha256
    assert "PyYAML" not in before.distributions


def test_where_it_lies_changes_nothing(tmp_path, monkeypatch):
    hashes = set()
    for folder in (tmp_path / "a", tmp_path / "b" / "c"):
        folder.mkdir(parents=True)
        (folder / "zz_mine.py").write_text("import zz_beside\n")
        (folder / "zz_beside.py").write_text("x = 1\n")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            spec = importlib.util.spec_from_file_location(
                f"named_by_{folder.name}", folder / "zz_mine.py"
            )
            module = importlib.util.module_from_spec(spec)
            hashes.add(source_of([module]).sha256)
        sys.modules.pop("zz_beside", None)
    assert len(hashes) == 1


def test_a_folders_hash_sees_names_and_contents_of_all_its_python_files(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "sub" / "b.py").write_text("2")
    seen = {code_hash(tmp_path)}
    (tmp_path / "notes.txt").write_text("not code")
    assert code_hash(tmp_path) in seen
    (tmp_path / "sub" / "b.py").write_text("3")
    seen.add(code_hash(tmp_path))
    (tmp_path / "sub" / "b.py").rename(tmp_path / "sub" / "c.py")
    seen.add(code_hash(tmp_path))
    assert len(seen) == 3
