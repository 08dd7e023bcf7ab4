"""`mbench scores`: a scorer's figures per layer, as JSON, as a table and as a page."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers.command import call
from helpers.tiny_suite import SUITE

PLUGIN = """\
import numpy as np
import mbench

class Known(mbench.Scorer):
    name = "known"
    def score(self, profile):
        return np.array([[3, 1, 3, 2] + [0] * 20, *([list(range(24))] * 3)]) / 1.0

class Broken(mbench.Scorer):
    name = "broken"
    needs = (mbench.RoutingSums(),)
    def score(self, profile):
        return profile.sums(mbench.RoutingSums())["counts"]

@mbench.hookimpl
def mbench_components():
    return [Known, Broken]

@mbench.hookimpl
def mbench_methods():
    return [mbench.Method(name, scorer=name, corpora=1) for name in ("known", "broken")]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scores")
    (folder / "tiny.yaml").write_text(SUITE.replace("[bible, wiki]\nm", "[wiki]\nm"))
    (folder / "known.py").write_text(PLUGIN)
    return folder


def test_every_layer_is_summed_up_and_the_json_has_every_score(folder):
    words = ("scores", "tiny.yaml", "known", "--plugin", "known.py", "--json")
    done = call(*words, "--html", "page.html", cwd=folder, store=folder / "s")
    assert (done.returncode, done.stderr) == (0, "")
    (scores,) = json.loads(done.stdout)["scores"]
    assert (scores["corpus"], scores["seed"]) == ("wiki", None)
    values = np.array(scores["values"])
    assert values.shape == (4, 24)
    first, second = scores["by_layer"][:2]
    assert (first["minimum"], first["median"], first["maximum"]) == (0, 0, 3)
    assert (first["best"], first["worst"], first["distinct"]) == ([0, 2, 3, 1], [23, 22, 21, 20], 4)
    assert (second["best"], second["median"]) == ([23, 22, 21, 20], 11.5)
    page = (folder / "page.html").read_text()
    assert "known on wiki, demo" in page
    assert len(page) < 100_000


def test_a_broken_scorer_is_named_with_its_line(folder):
    words = ("scores", "tiny.yaml", "broken", "--plugin", "known.py")
    done = call(*words, cwd=folder, store=folder / "s")
    assert done.returncode == 3
    assert "scorer 'broken', in score, raised KeyError: 'counts' (" in done.stderr
    assert "known.py:13" in done.stderr
