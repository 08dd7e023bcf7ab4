"""Methods that are declared wrongly, or give what they may not."""

from __future__ import annotations

from helpers.wrong_methods import (
    COUNTS,
    DONE,
    GLOBAL_TOP,
    NEEDS,
    SUMS,
    TOP,
    UNEVEN,
    Wrong,
    builder,
    scorer,
    selector,
    statistic,
)

WRONG_RESULTS = {
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
}
