"""The site: its generated pages leave nothing out, its pages are listed, and their Python runs."""

from __future__ import annotations

import importlib.util
import re
import sys
from types import ModuleType

import pytest

import mbench
from helpers.places import ROOT
from mbench.core import hookspecs
from mbench.plan.plugin_loading import load_registry
from mbench.plan.registry import KINDS

DOCS = ROOT / "docs"
RUN = ["python.md"]
"""Pages whose blocks of Python are one program."""


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generated_pages", DOCS / "generated_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def written(pages, tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated") / "generated"
    pages.write(folder)
    return folder


def test_every_public_name_and_hook_has_an_entry(written):
    reference, hooks = ((written / f"{name}.md").read_text() for name in ("reference", "hooks"))
    assert {name for name in mbench.__all__ if f"\n### {name}\n" not in reference} == set()
    named = {name for name in vars(hookspecs) if name.startswith("mbench_")}
    assert {name for name in named if f"## {name}\n" not in hooks} == set()
    assert "def " not in reference
    assert "measure(self, batch: LayerBatch) -> Mapping[str, torch.Tensor]" in reference


def test_every_method_of_ours_has_its_formulas(written):
    registry = load_registry()
    index = (written / "methods.md").read_text()
    whole = "".join(path.read_text() for path in (written / "methods").iterdir())
    for (kind, name), origin in registry.origins.items():
        if not getattr(origin.code, "__name__", "").startswith("mbench_plugins."):
            continue
        if kind == "method":
            assert f"| `{name}` |" in index
            assert f"- `{name}`: " in whole
        if kind in KINDS:
            assert f"## {kind} `{name}" in whole
    assert "mean, over the\ntokens routed to an expert" in (written / "methods/reap.md").read_text()


def test_links_out_of_the_site_become_paths(pages):
    text = "[plugins/](../plugins/), [a suite](../suites/quickstart.yaml#L3) and [here](store.md)"
    shown = "`plugins/`, a suite (`suites/quickstart.yaml`) and [here](store.md)"
    assert pages.without_links_to_code(text) == shown


def test_every_page_is_listed():
    index = (DOCS / "index.md").read_text()
    listed = set(re.findall(r"^[\w/]+$", index, re.MULTILINE))
    assert {path.stem for path in DOCS.glob("*.md")} - {"index"} <= listed


@pytest.mark.parametrize("page", RUN)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    """From a file, as a reader would who pastes it into a script."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MBENCH_STORE", str(tmp_path / "store"))
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)
    script = tmp_path / "pasted.py"
    script.write_text("\n".join(blocks))
    spec = importlib.util.spec_from_file_location("pasted", script)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "pasted", module)
    spec.loader.exec_module(module)
    assert module.results.problems == {}
    assert module.planned.cells["method"].nunique() == 3
