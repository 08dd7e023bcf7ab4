"""Wrong methods of many kinds: each is found by the check that its mistake belongs to."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

import pytest

from mbench.testing import CHECKS, ConformanceError, check_method, conformance_tests

HEAD = "import random\nimport numpy as np\nimport torch\nimport mbench\n"
SUMS = "profile.sums(mbench.RoutingSums())"
NEEDS = "    needs = (mbench.RoutingSums(),)\n"


@dataclass(frozen=True)
class Wrong:
    """A plugin with one method `bad`, the check that must find it, and what the message has."""

    check: str
    source: str
    message: str


def indented(body: str) -> str:
    return textwrap.indent(textwrap.dedent(body), " " * 8)


def plugin(classes: str, **method: object) -> str:
    parts = ", ".join(f"{name}={value!r}" for name, value in {"corpora": 1, **method}.items())
    names = ", ".join(
        line.split("(")[0].removeprefix("class ")
        for line in classes.splitlines()
        if line.startswith("class ")
    )
    return (
        f"{HEAD}{classes}\n@mbench.hookimpl\ndef mbench_components():\n    return [{names}]\n"
        f"@mbench.hookimpl\ndef mbench_methods():\n    return [mbench.Method('bad', {parts})]\n"
    )


def scorer(body: str, head: str = NEEDS, **method: object) -> str:
    text = f"class Bad(mbench.Scorer):\n    name = 'bad'\n{head}    def score(self, profile):\n"
    return plugin(text + indented(body), **{"scorer": "bad", **method})


def selector(body: str, head: str = "", **method: object) -> str:
    text = f"class Bad(mbench.Selector):\n    name = 'bad'\n{head}"
    text += "    def select(self, scores, budget, rng):\n"
    text += "        values = next(iter(scores.values())).values\n"
    text += "        chosen = np.zeros(values.shape, bool)\n"
    return plugin(text + indented(body), **{"scorer": "reap", "selector": "bad", **method})


def builder(body: str, head: str = "", base: str = "MaskBuilder", **method: object) -> str:
    arguments = "selection, scores, budget, candidate"
    step = f"build(self, {arguments})"
    if base == "MaskSearch":
        step = f"search(self, {arguments}, probe, rng)"
    text = f"class Bad(mbench.{base}):\n    name = 'bad'\n{head}    def {step}:\n"
    text += "        keep = selection.chosen.copy()\n"
    return plugin(text + indented(body), **{"scorer": "reap", "builder": "bad", **method})


def statistic(body: str, head: str = "", score: str = "profile.sums(Stat())['a']") -> str:
    text = f"class Stat(mbench.Statistic):\n    name = 'stat'\n{head}"
    text += f"    def measure(self, batch):\n{indented(body)}\n"
    text += "class Bad(mbench.Scorer):\n    name = 'bad'\n    needs = (Stat(),)\n"
    text += f"    def score(self, profile):\n        return {score}\n"
    return plugin(text, scorer="bad")


TOP = "np.put_along_axis(chosen, np.argsort(-values, axis=1)[:, :budget.kept], True, axis=1)\n"
DONE = "return mbench.Selection(chosen)"
COUNTS = "torch.bincount(batch.top_k_index.flatten(), minlength=batch.num_experts).double()"
UNEVEN = "    layers = 'any'\n"
GLOBAL_TOP = """\
values = next(iter(scores.values())).values
order = np.argsort(-values, axis=None, kind='stable')
keep = np.zeros(values.size, bool)
keep[order[:budget.total]] = True
keep = keep.reshape(values.shape)
"""
MERGED = """\
into = np.where(keep, np.arange(keep.shape[1]), keep.argmax(axis=1)[:, None])
weights = keep.astype(np.float32)
"""

WRONG = {
    # parameters
    "identity of its own": Wrong(
        "parameters", scorer(f"return {SUMS}['count']", f"{NEEDS}    identity = 'x'\n"), "identity"
    ),
    "state beside parameters": Wrong(
        "parameters",
        scorer(
            f"return {SUMS}['count'] * self.power",
            f"{NEEDS}    def __init__(self, params=None, **values):\n"
            "        super().__init__(params, **values)\n        self.power = 2\n",
        ),
        "holds power beside its parameters",
    ),
    "parameters that are not plain": Wrong(
        "parameters",
        scorer(
            f"return {SUMS}['count']",
            f"{NEEDS}    class Params(mbench.Parameters):\n        key: object = object()\n",
        ),
        "parameters cannot be written",
    ),
    "unknown scorer": Wrong(
        "parameters", scorer(f"return {SUMS}['count']", scorer="baad"), "unknown scorer 'baad'"
    ),
    "wrong parameter": Wrong(
        "parameters",
        scorer(f"return {SUMS}['count']").replace(
            "scorer='bad'", "scorer=mbench.Use('bad', {'power': 2})"
        ),
        "power",
    ),
    "no candidate": Wrong(
        "parameters", builder("return mbench.ExpertMask(keep)", "    takes_candidate = True\n"), ""
    ),
    "a candidate that draws": Wrong(
        "parameters",
        builder(
            "return mbench.ExpertMask(keep)", "    takes_candidate = True\n", candidate="random"
        ),
        "its candidate 'random' draws at random",
    ),
    "fresh parameters every time": Wrong(
        "parameters",
        scorer(
            f"return {SUMS}['count']",
            "    class Params(mbench.Parameters):\n"
            "        at: float = __import__('pydantic').Field(default_factory="
            "__import__('time').perf_counter)\n" + NEEDS,
        ),
        "two identities",
    ),
    # needs
    "needs no tuple": Wrong(
        "needs", scorer(f"return {SUMS}['count']", "    needs = mbench.RoutingSums()\n"), "tuple"
    ),
    "needs left out": Wrong("needs", scorer(f"return {SUMS}['count']", ""), "add it"),
    # statistics
    "statistic of floats": Wrong(
        "statistics", statistic("return {'a': batch.hidden.numpy().sum(0)}"), "torch.Tensor"
    ),
    "statistic that fails in bfloat16": Wrong(
        "statistics",
        statistic(f"return {{'a': {COUNTS} + 0 * float(batch.hidden.numpy().min())}}"),
        "bfloat16",
    ),
    "statistic with its own unseeded generator": Wrong(
        "statistics",
        statistic(f"rng = np.random.default_rng()\nreturn {{'a': {COUNTS} * rng.random()}}"),
        "two passes give different values",
    ),
    "statistic of a varying name": Wrong(
        "statistics", statistic(f"return {{f'a{{len(batch.token)}}': {COUNTS}}}"), "must not vary"
    ),
    "statistic not finite for unused experts": Wrong(
        "statistics",
        statistic(f"c = {COUNTS}\nreturn {{'a': c / c * c}}"),
        "not finite",
    ),
    # batches
    "mean over batches": Wrong(
        "batches",
        statistic(f"return {{'a': {COUNTS} / len(batch.token)}}"),
        "depends on how many sequences",
    ),
    "first token of every batch": Wrong(
        "batches",
        statistic(
            "return {'x': batch.hidden[:1].float()}",
            "    combine = 'concatenate'\n",
            "np.stack([np.resize(profile.samples(Stat(), l)['x'].sum(0), profile.num_experts)"
            " for l in range(len(profile.layers))])",
        ),
        "scores depend on how many sequences",
    ),
    # shards
    "first shard alone": Wrong(
        "shards",
        scorer("return profile.shards(mbench.RoutingSums())['gate'][0]"),
        "changes no score",
    ),
    "depends on the number of shards": Wrong(
        "shards",
        scorer(
            "arrays = profile.shard_sums[mbench.RoutingSums().identity]\n"
            "return arrays['gate_norm'].sum(axis=0) ** len(arrays['gate'])"
        ),
        "number of shards",
    ),
    # result
    "transposed": Wrong(
        "result", scorer(f"return {SUMS}['count'].T"), "must return float64 [1, 4]"
    ),
    "bools": Wrong("result", scorer(f"return {SUMS}['count'] > 5"), "got bool"),
    "a masked array": Wrong(
        "result", scorer(f"return np.ma.masked_less({SUMS}['count'], 5)"), "got a masked array"
    ),
    "a selection of numbers": Wrong(
        "result", selector(f"{TOP}return mbench.Selection(np.argwhere(chosen))"), "of bool [1, 4]"
    ),
    "a mask instead of a selection": Wrong(
        "result", selector(f"{TOP}return mbench.ExpertMask(chosen)"), "must return a Selection"
    ),
    "several corpora that it cannot take": Wrong(
        "result", scorer(f"return {SUMS}['count']", corpora=None), "takes scores of one corpus"
    ),
    "one text for notes": Wrong(
        "result", builder("return mbench.ExpertMask(keep, 'clamped')"), "tuple of texts"
    ),
    "preserved routers forgotten": Wrong(
        "result",
        scorer(f"assert profile.router == 'sliced'\nreturn {SUMS}['count']"),
        "preserved router",
    ),
    # budget
    "one too many": Wrong("budget", selector(f"{TOP}chosen[0] = True\n{DONE}"), "not K = 2"),
    "K rounded to the nearest": Wrong(
        "budget",
        selector(
            "kept = round(budget.retain * budget.num_experts)\n"
            f"{TOP.replace('budget.kept', 'kept')}{DONE}"
        ),
        "kept 3 experts in layer 0, not K = 2",
    ),
    "uneven without saying so": Wrong(
        "budget", builder(f"{GLOBAL_TOP}return mbench.ExpertMask(keep)"), 'layers = "any"'
    ),
    "K of every layer rounded": Wrong(
        "budget",
        builder(
            "keep[:] = True\nkeep[:, -1] = budget.kept == 2\nreturn mbench.ExpertMask(keep)", UNEVEN
        ),
        "not K x layers",
    ),
    "least per layer ignored": Wrong(
        "budget",
        builder(f"{GLOBAL_TOP}return mbench.ExpertMask(keep)", UNEVEN),
        "the router needs at least 1",
    ),
    "groups ignored": Wrong(
        "budget", builder("return mbench.ExpertMask(keep)", UNEVEN), "budget.groups"
    ),
    # feasible
    "refuses too late": Wrong(
        "feasible",
        builder(
            "if budget.kept < 2:\n    raise mbench.Infeasible('at least 2')\n"
            "return mbench.ExpertMask(keep)"
        ),
        "where `check` had said nothing",
    ),
    "check of another kind": Wrong(
        "feasible",
        builder(
            "return mbench.ExpertMask(keep)",
            "    def check(self, budget):\n        assert budget.kept > 1\n",
        ),
        "AssertionError",
    ),
    "notes of one text": Wrong(
        "feasible",
        builder(
            "return mbench.ExpertMask(keep)",
            "    def notes(self, budget):\n        return 'clamped'\n",
        ),
        "notes must be texts",
    ),
    # pure
    "writes into scores": Wrong("pure", selector(f"{TOP}values[:] = 0\n{DONE}"), "read-only"),
    "writes into the candidate": Wrong(
        "pure",
        builder(
            "candidate.keep[:] = keep\nreturn candidate",
            "    takes_candidate = True\n",
            candidate="reap",
        ),
        "read-only",
    ),
    "takes a corpus out": Wrong(
        "pure", selector(f"{TOP}scores.clear()\n{DONE}"), "mapping of scores"
    ),
    "remembers on the component": Wrong(
        "pure",
        scorer(f"self.total = {SUMS}['count']\nreturn self.total"),
        "keeps total on the component",
    ),
    "remembers on its class": Wrong(
        "pure",
        scorer(f"type(self).last = profile.tokens\nreturn {SUMS}['count']"),
        "keeps Bad.last on the component",
    ),
    "remembers in a list of its class": Wrong(
        "pure",
        scorer(f"self.seen.append(1)\nreturn {SUMS}['count']", f"{NEEDS}    seen = []\n"),
        "changes its Bad.seen",
    ),
    "remembers in its parameters": Wrong(
        "pure",
        scorer(
            f"self.params.seen.append(1)\nreturn {SUMS}['count']",
            f"{NEEDS}    class Params(mbench.Parameters):\n        seen: list[int] = []\n",
        ),
        "changes its params",
    ),
    "puts arrays into its profile": Wrong(
        "pure",
        scorer(
            "sums = profile.shards(mbench.RoutingSums())\nsums['mean'] = sums['gate'] * 2\n"
            "return profile.sums(mbench.RoutingSums())['mean']"
        ),
        "a profile's arrays",
    ),
    "a statistic remembers": Wrong(
        "pure",
        statistic(f"self.seen = getattr(self, 'seen', 0) + 1\nreturn {{'a': {COUNTS}}}"),
        "keeps seen on the component",
    ),
    "a statistic changes its batch": Wrong(
        "pure", statistic(f"batch.hidden.mul_(0)\nreturn {{'a': {COUNTS}}}"), "only may read"
    ),
    "a statistic changes its batch behind torch's back": Wrong(
        "pure",
        statistic(f"batch.hidden.data.zero_()\nreturn {{'a': {COUNTS}}}"),
        "changed its batch's 'hidden'",
    ),
    "a statistic changes weights": Wrong(
        "pure",
        statistic(
            "cells = [cell.cell_contents for cell in batch.expert_outputs.__closure__]\n"
            "(layer,) = [each for each in cells if hasattr(each, 'experts')]\n"
            f"layer.experts.down_proj.data.zero_()\nreturn {{'a': {COUNTS}}}"
        ),
        "changed the model's weights",
    ),
    # global state
    "numpy's generator": Wrong(
        "global-state", scorer(f"return np.random.rand(*{SUMS}['count'].shape)"), "numpy's global"
    ),
    "random's generator": Wrong(
        "global-state", scorer(f"return {SUMS}['count'] * random.random()"), "`random`"
    ),
    "torch's generator in a statistic": Wrong(
        "global-state", statistic(f"return {{'a': {COUNTS} + torch.rand(1)}}"), "torch's global"
    ),
    "torch's default dtype": Wrong(
        "global-state",
        scorer(f"torch.set_default_dtype(torch.float64)\nreturn {SUMS}['count']"),
        "default dtype",
    ),
    "the environment": Wrong(
        "global-state",
        scorer(f"__import__('os').environ['SEEN'] = '1'\nreturn {SUMS}['count']"),
        "changed SEEN in the environment",
    ),
    "numpy's handling of errors": Wrong(
        "global-state", scorer(f"np.seterr(all='ignore')\nreturn {SUMS}['count']"), "errstate"
    ),
    # deterministic
    "an unseeded generator": Wrong(
        "deterministic",
        scorer(f"return {SUMS}['count'] + np.random.default_rng().random()"),
        "asked again",
    ),
    "remembers in its module": Wrong(
        "deterministic",
        scorer(f"CALLS.append(1)\nreturn {SUMS}['count'] * (1 + 1e-9 * len(CALLS))").replace(
            "import mbench\n", "import mbench\nCALLS = []\n", 1
        ),
        "asked again",
    ),
    "seeded by the clock": Wrong(
        "deterministic",
        selector(
            "rng = np.random.default_rng()\nfor row in chosen:\n"
            "    row[rng.choice(len(row), budget.kept, replace=False)] = True\n" + DONE,
            "    stochastic = True\n",
        ),
        "layer 0 keeps experts",
    ),
    # seeds
    "draws without saying so": Wrong(
        "seeds",
        selector(f"{TOP}rng.random()\n{DONE}"),
        "without saying `stochastic = True`",
    ),
    "scores drawn without saying so": Wrong(
        "seeds",
        scorer(f"return {SUMS}['count'] + profile.rng.random(profile.num_experts)"),
        "without saying `stochastic = True`",
    ),
    "a selector draws from a profile's generator": Wrong(
        "seeds",
        selector(f"{TOP}next(iter(scores.values())).profile.rng.random()\n{DONE}"),
        "without saying `stochastic = True`",
    ),
    "says it draws and does not": Wrong(
        "seeds", selector(f"{TOP}{DONE}", "    stochastic = True\n"), "one and the same mask"
    ),
    # equivariant
    "lower numbers preferred": Wrong(
        "equivariant",
        scorer(f"return {SUMS}['gate_norm'] - 100 * np.arange(profile.num_experts)"),
        "experts renumbered",
    ),
    "neighbours spread": Wrong(
        "equivariant",
        selector(
            "for row, order in zip(chosen, np.argsort(-values, axis=1)):\n"
            "    even = [e for e in order if e % 2 == 0]\n"
            "    row[(even + [e for e in order if e % 2])[:budget.kept]] = True\n" + DONE
        ),
        "in their new numbers",
    ),
    "merged into the lowest number": Wrong(
        "equivariant",
        builder(f"{MERGED}return mbench.ExpertMask(keep, stand_in=mbench.Merged(into, weights))"),
        "is taken up by",
    ),
    # ties
    "all of the K-th's equals": Wrong(
        "ties",
        selector("return mbench.Selection(values >= np.sort(values, axis=1)[:, [-budget.kept]])"),
        "kept 4 experts",
    ),
    # names, corpora, long-text
    "depends on the corpus's name": Wrong(
        "names", scorer(f"return {SUMS}['count'] * len(profile.corpus)"), "under other names"
    ),
    "depends on the model's name": Wrong(
        "names",
        scorer(f"return {SUMS}['count' if profile.model == 'synthetic' else 'gate']"),
        "under other names",
    ),
    "the last corpus alone": Wrong(
        "corpora",
        selector(
            f"for each in scores.values():\n    values = each.values\n{TOP}{DONE}", corpora=None
        ),
        "the scores on corpus 1 of 3",
    ),
    "the first corpus alone": Wrong(
        "corpora", selector(f"{TOP}{DONE}", corpora=None), "the scores on corpus 2 of 3"
    ),
    "exponentials of counts": Wrong(
        "long-text",
        scorer(f"with np.errstate(all='ignore'):\n    return np.exp({SUMS}['count'])"),
        "returned inf",
    ),
    "counted in half precision": Wrong(
        "long-text",
        scorer(
            "with np.errstate(all='ignore'):\n"
            f"    return {SUMS}['count'].astype(np.float16).astype(float)"
        ),
        "returned inf",
    ),
    # never-selected
    "mean of nothing": Wrong(
        "never-selected",
        scorer(f"s = {SUMS}\nwith np.errstate(all='ignore'):\n    return s['gate'] / s['count']"),
        "returned nan",
    ),
    "logarithm of nothing": Wrong(
        "never-selected",
        scorer(f"with np.errstate(all='ignore'):\n    return np.log({SUMS}['count'])"),
        "returned -inf",
    ),
    # one-expert, all-experts
    "two experts at least": Wrong(
        "one-expert",
        builder("keep[:, :2] |= keep.sum() == len(keep)\nreturn mbench.ExpertMask(keep)"),
        "not K = 1",
    ),
    "one is always dropped": Wrong(
        "all-experts",
        builder("keep[:, 0] &= ~keep.all()\nreturn mbench.ExpertMask(keep)"),
        "not K = 4",
    ),
    # stand-ins
    "constants of kept experts": Wrong(
        "stand-ins",
        builder(
            "ones = np.ones((*keep.shape, 12), np.float32)\n"
            "return mbench.ExpertMask(keep, stand_in=mbench.Constants(ones))"
        ),
        "must be 0, as it is kept",
    ),
    "constants of another size": Wrong(
        "stand-ins",
        builder(
            "ones = np.zeros((*keep.shape, 1), np.float32)\n"
            "return mbench.ExpertMask(keep, stand_in=mbench.Constants(ones))"
        ),
        "ends in 1 where the model has 12",
    ),
    "merged into dropped ones": Wrong(
        "stand-ins",
        builder(
            f"{MERGED}into[~keep] = np.argwhere(~keep)[:, 1]\n"
            "return mbench.ExpertMask(keep, stand_in=mbench.Merged(into, weights))"
        ),
        "must be a kept expert",
    ),
    "left to none by a mapped router": Wrong(
        "stand-ins",
        builder(
            f"{MERGED}into[~keep] = -1\n"
            "return mbench.ExpertMask(keep, stand_in=mbench.Merged(into, weights))"
        ),
        "where the router is mapped",
    ),
    "neurons that are no order": Wrong(
        "stand-ins",
        builder(
            f"{MERGED}neurons = np.zeros((*keep.shape, 8), np.int64)\n"
            "return mbench.ExpertMask(keep, stand_in=mbench.Merged(into, weights, neurons))"
        ),
        "must be an order of 0 to 7",
    ),
    # search
    "spends more than it may": Wrong(
        "search",
        builder(
            "for layer in range(len(keep)):\n    for drop in np.flatnonzero(keep[layer]):\n"
            "        for take in np.flatnonzero(~keep[layer]):\n"
            "            other = keep.copy()\n            other[layer, [drop, take]] ^= True\n"
            "            probe.losses([mbench.ExpertMask(other)])\n"
            "return mbench.ExpertMask(keep)",
            base="MaskSearch",
        ),
        "probe.masks_left",
    ),
    "gives itself more": Wrong(
        "result",
        builder("probe.limit = 10**9\nreturn mbench.ExpertMask(keep)", base="MaskSearch"),
        "limit",
    ),
    "never asks": Wrong(
        "search", builder("return mbench.ExpertMask(keep)", base="MaskSearch"), "for nothing"
    ),
    "asks for an empty layer": Wrong(
        "search",
        builder(
            "probe.losses([mbench.ExpertMask(keep & False)] * (probe.masks_left > 0))\n"
            "return mbench.ExpertMask(keep)",
            base="MaskSearch",
        ),
        "keeps no expert",
    ),
}


def failed(tmp_path, name, *checks):
    """What the kit says of a wrong method, one report a check."""
    file = tmp_path / f"{name.replace(' ', '_')}.py"
    file.write_text(WRONG[name].source)
    with pytest.raises(ConformanceError) as caught:
        check_method(file, "bad", checks)
    return str(caught.value).split("\n\n")


@pytest.mark.parametrize("name", WRONG)
def test_is_found_by_its_check(tmp_path, name):
    wrong = WRONG[name]
    (report,) = failed(tmp_path, name, wrong.check)
    assert report.startswith(f"method 'bad', check '{wrong.check}': ")
    assert wrong.message in report


@pytest.mark.long
@pytest.mark.parametrize("name", WRONG)
def test_is_found_by_no_other_check(tmp_path, name):
    (report,) = failed(tmp_path, name, *CHECKS)
    assert f"check '{WRONG[name].check}'" in report


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise RuntimeError('boom')", "raised RuntimeError: boom"),
        ("import mbench\n", "it implements no mbench hook"),
        (scorer(f"return {SUMS}['count']").replace("'bad'", "'reap'"), "is already registered"),
        (scorer(f"return {SUMS}['count']").replace("[Bad]", "Bad"), "must return a list"),
        (
            scorer(f"return {SUMS}['count']", f"{NEEDS}    class Params:\n        power = 2\n"),
            "must be a subclass of mbench.Parameters",
        ),
        (scorer(f"return {SUMS}['count']", corpora="1"), "its `corpora` is '1'; valid: None, or"),
        (
            builder("return mbench.ExpertMask(keep)", "    layers = 'uneven'\n"),
            "its `layers` is 'uneven'; valid: 'equal', 'any'",
        ),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_one_failing_test(tmp_path, source, message):
    file = tmp_path / "plugin.py"
    file.write_text(source)
    with pytest.raises(ConformanceError, match=re.escape(message)):
        conformance_tests(file)()


@pytest.mark.parametrize(
    "body",
    [
        f"return {SUMS}['count'] * 0",
        f"return torch.tensor({SUMS}['gate']).float()",
        f"print('seen')\nreturn {SUMS}['norm']",
    ],
)
def test_what_is_odd_and_harmless_passes(tmp_path, body):
    file = tmp_path / "plugin.py"
    file.write_text(scorer(body))
    check_method(file, "bad")


def test_planted_experts_that_are_not_kept_as_said(tmp_path):
    file = tmp_path / "plugin.py"
    file.write_text(scorer(f"return -{SUMS}['gate_norm']"))
    planted = {"bad": {"never": False}}
    with pytest.raises(ConformanceError, match="must drop the planted 'never'"):
        conformance_tests(file, planted=planted)("bad", "planted")
    with pytest.raises(ConformanceError, match="unknown kind of planted expert 'lowd'"):
        conformance_tests(file, planted={"bad": {"lowd": True}})("bad", "planted")
    with pytest.raises(ConformanceError, match="unknown method or check 'good'"):
        conformance_tests(file, skip={"good": {"ties": "none"}})


def test_scores_kept_by_what_they_follow_from_are_not_accused(tmp_path):
    kept = "key = profile.model, profile.revision, profile.corpus, profile.tokens\n"
    kept += f"return KEPT.setdefault(key, {SUMS}['count'])"
    file = tmp_path / "plugin.py"
    file.write_text(scorer(kept).replace("import mbench\n", "import mbench\nKEPT = {}\n", 1))
    check_method(file, "bad")


@pytest.mark.parametrize("corpora", [2, 5])
def test_methods_of_several_corpora_are_given_so_many(tmp_path, corpora):
    file = tmp_path / "plugin.py"
    mean = "values = np.mean([each.values for each in scores.values()], axis=0)\n"
    file.write_text(
        selector(f"assert len(scores) == {corpora}\n{mean}{TOP}{DONE}", corpora=corpora)
    )
    check_method(file, "bad")


def test_every_check_finds_one():
    assert {wrong.check for wrong in WRONG.values()} == set(CHECKS)
