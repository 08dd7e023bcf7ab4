"""A class typed into a notebook has a key that follows from all that its scores follow from."""

from __future__ import annotations

import linecache
import os
import subprocess
import sys
from types import ModuleType

import pytest

from helpers.places import ROOT
from mbench.core.errors import PluginError
from mbench.plan.components import class_code
from mbench.storage.source_code import source_of

CELLS = (
    "import numpy as np\nimport mbench\nPOWER = 2\nTABLE = np.ones(3)\nLIST = [1, 'a']\n",
    "def helper(x):\n    return inner(x) ** POWER\n\ndef inner(x):\n    return x * TABLE[0]\n",
    "class Mine(mbench.Scorer):\n    '''Mine.'''\n    name = 'mine'\n    limit = 3\n"
    "    needs = (mbench.RoutingSums(),)\n"
    "    def score(self, profile):\n        # a comment\n        return helper(LIST)\n"
    "mbench\n",
)


@pytest.fixture
def session(monkeypatch):
    """Runs cells as a notebook does; gives the key of the class that the last one defines."""
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    typed = []

    def run(*cells, name="Mine"):
        for text in cells:
            place = f"<cell {len(linecache.cache)}>"
            typed.append(place)
            linecache.cache[place] = (len(text), None, text.splitlines(True), place)
            exec(compile(text, place, "exec"), vars(main))
        return source_of(class_code(vars(main)[name])).sha256

    yield run
    for place in typed:
        linecache.cache.pop(place)


def test_what_changes_nothing_keeps_the_key(session):
    before = session(*CELLS)
    assert session(*CELLS) == before
    assert session("OTHER = object()") == before
    assert session(CELLS[2] + "print\n") == before
    assert session(CELLS[2].replace("        # a comment\n", "")) == before


@pytest.mark.parametrize(
    ("cell", "old", "new"),
    [
        (0, "POWER = 2", "POWER = 3"),
        (0, "np.ones(3)", "np.zeros(3)"),
        (0, "[1, 'a']", "[1, 'b']"),
        (1, "x * TABLE", "x + TABLE"),
        (2, "helper(LIST)", "inner(LIST)"),
        (2, "limit = 3", "limit = 4"),
    ],
)
def test_what_its_scores_may_follow_from_changes_the_key(session, cell, old, new):
    before = session(*CELLS)
    changed = list(CELLS)
    assert old in changed[cell]
    changed[cell] = changed[cell].replace(old, new)
    assert session(*changed) != before


def test_what_a_class_reads_while_it_is_made_counts(session):
    cell = CELLS[2].replace("limit = 3", "_limit = SCALE")
    assert session(*CELLS[:2], "SCALE = 2", cell) != session(*CELLS[:2], "SCALE = 3", cell)


def test_the_order_of_a_set_does_not_count():
    program = (
        "import linecache, sys\n"
        "from types import ModuleType\n"
        "from mbench.plan.components import class_code\n"
        "from mbench.storage.source_code import source_of\n"
        'text = \'import mbench\\nNAMES = frozenset({"a", "b", "c", "d"})\\n\' \\\n'
        "    'class Mine(mbench.Scorer):\\n    name = \"mine\"\\n' \\\n"
        "    '    def score(self, profile):\\n        return NAMES\\n'\n"
        "linecache.cache['<cell>'] = (len(text), None, text.splitlines(True), '<cell>')\n"
        "main = sys.modules['__main__'] = ModuleType('__main__')\n"
        "exec(compile(text, '<cell>', 'exec'), vars(main))\n"
        "print(source_of(class_code(main.Mine)).sha256)\n"
    )
    keys = set()
    for seed in "1234":
        command = [sys.executable, "-c", program]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment
        )
        keys.add(done.stdout)
    assert len(keys) == 1


def test_a_base_class_and_a_function_used_deep_inside_count(session):
    base = "class Base(mbench.Scorer):\n    def score(self, profile):\n        return deep()\n"
    mine = "class Mine(Base):\n    name = 'mine'\n"
    first = session(CELLS[0], "def deep():\n    return [wide() for _ in 'ab']\n", base, mine)
    second = session("def wide(): return 1\n", name="Mine")
    assert session("def wide(): return 2\n", name="Mine") != second != first


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (("MODEL = object()", "helper = lambda x: MODEL"), "reads 'MODEL' of this session"),
        (("helper = eval('lambda x: x')",), "the source of <lambda>, which Mine uses, cannot"),
    ],
)
def test_what_its_source_does_not_show_is_refused(session, cells, message):
    session(*CELLS)
    with pytest.raises(PluginError, match=message):
        session(*cells)


def test_a_class_without_its_text_is_refused(session):
    session(*CELLS)
    main = sys.modules["__main__"]
    exec(CELLS[2], vars(main))
    with pytest.raises(PluginError, match="the source of Mine cannot be found: write it into a"):
        class_code(main.Mine)


def test_what_came_through_a_pipe_is_refused():
    text = CELLS[0] + CELLS[1] + CELLS[2]
    text += "from mbench.plan.components import class_code\nclass_code(Mine)\n"
    done = subprocess.run([sys.executable], input=text, capture_output=True, text=True, cwd=ROOT)
    assert "the source of Mine cannot be found: write it into a file" in done.stderr


def test_a_script_counts_as_its_file(tmp_path):
    text = "".join(CELLS) + (
        "from mbench.plan.components import class_code\n"
        "from mbench.storage.source_code import source_of\n"
        "if __name__ == '__main__':\n    print(source_of(class_code(Mine)).sha256)\n"
    )

    def key(text):
        (tmp_path / "script.py").write_text(text)
        command = [sys.executable, str(tmp_path / "script.py")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        return done.stdout

    assert key(text) == key(text) != key(text.replace("POWER = 2", "POWER = 3"))
