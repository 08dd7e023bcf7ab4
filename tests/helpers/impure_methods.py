"""Methods that change what they are given, remember, or draw without saying so."""

from __future__ import annotations

from helpers.wrong_methods import (
    COUNTS,
    DONE,
    NEEDS,
    SUMS,
    TOP,
    Wrong,
    builder,
    scorer,
    selector,
    statistic,
)

IMPURE = {
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
}
