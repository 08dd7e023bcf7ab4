"""Plugins with one mistake each, and what must be said of them in a run."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field

HEAD = "import sys, random\nimport numpy as np\nimport torch\nimport mbench\n"


NEEDS = "    needs = (mbench.RoutingSums(),)\n"


COUNT = 'profile.sums(mbench.RoutingSums())["count"]'


@dataclass(frozen=True)
class Wrong:
    """A plugin file that registers the method `NAME`, and what its cell must say; empty: fine."""

    source: str
    reason: str = ""
    beside: dict[str, str] = field(default_factory=dict)
    """Files in the same folder."""


def registered(classes: str, **method: str) -> str:
    parts = ", ".join(f"{kind}={name!r}" for kind, name in method.items())
    return (
        f"\n@mbench.hookimpl\ndef mbench_components():\n    return [{classes}]\n"
        f"\n@mbench.hookimpl\ndef mbench_methods():\n"
        f"    return [mbench.Method('NAME', {parts}, corpora=1)]\n"
    )


def scorer(body: str, head: str = NEEDS, name: str = "NAME") -> str:
    lines = textwrap.indent(textwrap.dedent(body), " " * 8)
    code = f"class Bad(mbench.Scorer):\n    name = {name!r}\n{head}"
    return f"{HEAD}{code}    def score(self, profile):\n{lines}\n" + registered("Bad", scorer=name)


def selector(body: str) -> str:
    lines = textwrap.indent(textwrap.dedent(body), " " * 8)
    return (
        f"{HEAD}class Bad(mbench.Selector):\n    name = 'NAME'\n"
        f"    def select(self, scores, budget, rng):\n{lines}\n"
        + registered("Bad", scorer="reap", selector="NAME")
    )


def statistic(body: str, name: str = "NAME", base: str = "mbench.Statistic") -> str:
    lines = textwrap.indent(textwrap.dedent(body), " " * 8)
    return (
        f"{HEAD}class Stat({base}):\n    name = {name!r}\n"
        f"    def measure(self, batch):\n"
        f"        p = batch.router_logits().softmax(-1)\n{lines}\n"
        f"class Bad(mbench.Scorer):\n    name = 'NAME'\n    needs = (Stat(),)\n"
        f"    def score(self, profile):\n        return profile.sums(Stat())['a']\n"
        + registered("Bad", scorer="NAME")
    )


HALF = "c = np.zeros((budget.num_layers, budget.num_experts), bool); c[:, :budget.kept] = True"


WRONG = {
    "raises-at-import": Wrong("'NAME'\nraise RuntimeError('boom')", "raised RuntimeError: boom"),
    "exits-at-import": Wrong("'NAME'\nimport sys\nsys.exit(4)", "raised SystemExit: 4"),
    "wrong-shape": Wrong(scorer(f"return {COUNT}.T"), "must return float64 [4, 24], got float64"),
    "nan": Wrong(scorer(f"return {COUNT} * np.nan"), "returned nan for layer 0 expert 0"),
    "bools": Wrong(scorer(f"return {COUNT} > 5"), "must return float64 [4, 24], got bool"),
    "wrong-k": Wrong(selector(f"{HALF}; c[:] = True; return mbench.Selection(c)"), "not K = 12"),
    "writes-scores": Wrong(
        selector("next(iter(scores.values())).values[:] = 0"), "read-only (", {}
    ),
    "writes-shards": Wrong(
        scorer("profile.shards(mbench.RoutingSums())['gate'][:] = 0"), "read-only ("
    ),
    "global-numpy": Wrong(
        scorer(f"return np.random.rand(*{COUNT}.shape)"), "draws from numpy's global random state"
    ),
    "global-random": Wrong(
        scorer(f"return {COUNT} * random.random()"), "draws from the global state of `random`"
    ),
    "global-torch": Wrong(
        scorer(f"return torch.rand({COUNT}.shape).numpy()"), "draws from torch's global random"
    ),
    "reseeds": Wrong(scorer(f"torch.manual_seed(1); return {COUNT}"), "draws from torch's"),
    "default-dtype": Wrong(
        scorer(f"torch.set_default_dtype(torch.float64); return {COUNT}"), "default dtype"
    ),
    "threads": Wrong(
        scorer(f"torch.set_num_threads(torch.get_num_threads() + 1); return {COUNT}"), "threads"
    ),
    "clash-scorer": Wrong(
        scorer(f"return -{COUNT}", name="reap"), "scorer 'reap' is already registered by reap"
    ),
    "clash-method": Wrong(
        scorer(f"return -{COUNT}").replace("Method('NAME'", "Method('reap'"),
        "method 'reap' is already registered by reap",
    ),
    "params": Wrong(
        scorer(f"return {COUNT}", f"{NEEDS}    class Params:\n        power = 2\n"),
        "must be a subclass of mbench.Parameters",
    ),
    "params-untyped": Wrong(
        scorer(
            f"return {COUNT}", f"{NEEDS}    class Params(mbench.Parameters):\n        power = 2\n"
        ),
        "params-untyped.py:",
    ),
    "unmarked": Wrong(
        scorer(f"return {COUNT}").replace("@mbench.hookimpl\ndef mbench_m", "def mbench_m"),
        "mbench_methods lacks @mbench.hookimpl",
    ),
    "misspelt": Wrong(
        scorer(f"return {COUNT}").replace("def mbench_methods", "def mbench_method"),
        "unknown hook 'mbench_method'",
    ),
    "class-not-list": Wrong(
        scorer(f"return {COUNT}").replace("return [Bad]", "return Bad"), "must return a list"
    ),
    "unknown-scorer": Wrong(
        scorer(f"return {COUNT}").replace("scorer='NAME'", "scorer='baad'"), "unknown scorer 'baad'"
    ),
    "names-vary": Wrong(
        statistic("return {'a': p.sum(0), f'b{int(batch.token[0])}': p.sum(0)}"), "must not vary"
    ),
    "stat-raises": Wrong(statistic("raise ValueError('broken')"), "ValueError: broken (", {}),
    "stat-exits": Wrong(statistic("sys.exit(7)"), "raised SystemExit: 7"),
    "stat-recurses": Wrong(statistic("return self.measure(batch)"), "RecursionError"),
    "stat-numpy": Wrong(statistic("return {'a': p.sum(0).numpy()}"), "must be a torch.Tensor"),
    "stat-none": Wrong(statistic("return None"), "must return tensors by name"),
    "stat-shape": Wrong(statistic("return {'a': p}"), "must have 24 experts in its first dim"),
    "stat-in-place": Wrong(
        statistic("batch.hidden.mul_(0); return {'a': p.sum(0)}"), "changed a tensor"
    ),
    "stat-by-data": Wrong(
        statistic(
            "for t in (batch.hidden, batch.top_k_weight, batch.output_norm): t.data.zero_()\n"
            "batch.top_k_index.data.zero_(); p.zero_(); batch.router_logits().zero_()\n"
            "return {'a': batch.output_norm.new_ones(24)}"
        )
    ),
    "stat-by-numpy": Wrong(
        statistic("batch.hidden.numpy()[:] = 7; batch.token.numpy()[:] = 0\nreturn {'a': p.sum(0)}")
    ),
    "stat-changes-weights": Wrong(
        statistic(
            "f = batch.expert_outputs\n"
            "cells = dict(zip(f.__code__.co_freevars, f.__closure__))\n"
            "experts = cells['layer'].cell_contents.experts\n"
            "w = experts.down_proj.detach().numpy(); w *= np.nan\n"
            "return {'a': p.sum(0)}"
        ),
        "changed the model's weights",
    ),
    "stat-hooks": Wrong(
        statistic(
            "torch.nn.modules.module.register_module_forward_hook(\n"
            "    lambda m, i, o: o * 0.9 if isinstance(o, torch.Tensor) else None)\n"
            "return {'a': p.sum(0)}"
        ),
        "or hooked into it",
    ),
    "stat-sparse": Wrong(statistic("return {'a': p.sum(0).to_sparse()}"), "a dense tensor"),
    "stat-metadata": Wrong(statistic("return {'a': p.sum(0), '__metadata__': p}"), "is no name"),
    "stat-identity": Wrong(
        statistic(
            "return {k: -p.sum(0) for k in ('a', 'count', 'gate', 'norm', 'gate_norm')}"
        ).replace(
            "    def measure", "    identity = mbench.RoutingSums().identity\n    def measure"
        ),
        "has an `identity` of its own",
    ),
    "cancels": Wrong(
        "import asyncio\n" + scorer("raise asyncio.CancelledError()"), "raised CancelledError"
    ),
    "writable": Wrong(
        selector("v = next(iter(scores.values())).values; v.flags.writeable = True; v *= -1"),
        "raised ValueError: cannot set WRITEABLE",
    ),
    "autocast": Wrong(
        "import torch\ntorch.set_autocast_dtype('cpu', torch.bfloat16)\n"
        "torch.set_autocast_enabled('cpu', True)\n" + scorer(f"return {COUNT}"),
    ),
    "default-device": Wrong(
        scorer(f"torch.set_default_device('meta'); return {COUNT}"), "default device"
    ),
    "moves-away": Wrong(scorer(f"import os; os.chdir('/'); return {COUNT}"), "working directory"),
    "patches": Wrong(
        "import mbench\nold = mbench.RoutingSums.measure\n"
        "def negated(self, b):\n    return {k: -v for k, v in old(self, b).items()}\n"
        "mbench.RoutingSums.measure = negated\n" + scorer(f"return {COUNT}"),
        "it changes RoutingSums.measure",
    ),
    "class-for-name": Wrong(
        scorer(f"return {COUNT}").replace("scorer='NAME'", "scorer=Bad"),
        "its scorer must be a name or mbench.Use, got",
    ),
    "stat-half": Wrong(statistic("return {'a': p.sum(0).half()}").replace("[Bad]", "[Stat, Bad]")),
    "stat-same-name": Wrong(
        statistic("return {'a': -p.sum(0)}", name="routing-sums", base="mbench.RoutingSums")
    ),
    "stat-like-another": Wrong(
        statistic("return {'a': p.sum(0) * 2}", name="stat-half").replace("[Bad]", "[Stat, Bad]")
    ),
    "stat-in-function": Wrong(
        statistic("return {'a': p.sum(0)}")
        .replace("class Stat", "def made(power):\n  class Stat")
        .replace("class Bad", "  return Stat\nclass Bad")
        .replace("    name = 'NAME'\n    def m", "    name = 'NAME'\n    def m")
        .replace("needs = (Stat(),)", "needs = (made(2)(),)"),
        "defined inside a function",
    ),
    "stat-with-state": Wrong(
        statistic("return {'a': p.sum(0) ** self.power}").replace(
            "    def measure",
            "    def __init__(self, power=2):\n        super().__init__()\n"
            "        self.power = power\n    def measure",
        ),
        "holds power beside its parameters",
    ),
    "score-exits": Wrong(scorer("sys.exit(5)"), "in score, raised SystemExit: 5"),
    "score-recurses": Wrong(scorer("return self.score(profile)"), "raised RecursionError"),
    "wrong-array": Wrong(
        scorer("return profile.sums(mbench.RoutingSums())['counts']"), "raised KeyError: 'counts' ("
    ),
    "needs-class": Wrong(
        scorer(f"return {COUNT}", "    needs = (mbench.RoutingSums,)\n"), "tuple of statistics"
    ),
    "needs-bare": Wrong(
        scorer(f"return {COUNT}", "    needs = mbench.RoutingSums()\n"), "tuple of statistics"
    ),
    "cannot-be-made": Wrong(
        scorer(
            f"return {COUNT}",
            f"{NEEDS}    def __init__(self, params=None):\n        raise RuntimeError('no GPU')\n",
        ),
        "cannot be made: it raised RuntimeError: no GPU",
    ),
    "check-exits": Wrong(
        scorer(f"return {COUNT}", f"{NEEDS}    def check(self, budget):\n        sys.exit('no')\n"),
        "raised SystemExit: no",
    ),
    "gambles": Wrong(
        selector(f"{HALF}; return mbench.Selection(rng.permuted(c, axis=1))"),
        "draws at random without saying so: it needs `stochastic = True`",
    ),
    "meddles": Wrong(
        f"{HEAD}class Bad(mbench.MaskBuilder):\n    name = 'NAME'\n    takes_candidate = True\n"
        "    def build(self, selection, scores, budget, candidate):\n"
        "        candidate.keep[:] = False\n"
        + registered("Bad", scorer="reap", builder="NAME", candidate="reap"),
        "in build, raised ValueError: assignment destination is read-only (",
    ),
    "on-a-broken-one": Wrong(
        f"{HEAD}\n@mbench.hookimpl\ndef mbench_methods():\n    return [mbench.Method('NAME',"
        " scorer='reap', builder='protect', candidate='nan', corpora=1)]\n",
        "its candidate 'nan' has no mask at this budget",
    ),
    "on-one-that-is-not-loaded": Wrong(
        f"{HEAD}\n@mbench.hookimpl\ndef mbench_methods():\n    return [mbench.Method('NAME',"
        " scorer='reap', builder='protect', candidate='raises-at-import', corpora=1)]\n",
        "its candidate 'raises-at-import' has no mask at this budget",
    ),
    "prints": Wrong(scorer(f"print('debug'); return {COUNT}")),
    "ties": Wrong(scorer(f"return {COUNT} * 0")),
    "helper": Wrong(
        "import sibling_of_helper\n" + scorer(f"return sibling_of_helper.negated({COUNT})"),
        beside={"sibling_of_helper.py": "def negated(values):\n    return -values\n"},
    ),
}


PLACELESS = {
    *("unknown-scorer", "wrong-k", "needs-class", "needs-bare", "stat-with-state"),
    *("stat-identity", "stat-hooks", "stat-changes-weights", "class-for-name"),
}
"""Of these the method or component is named, and no line of code went wrong."""
