"""Methods with one mistake each, as plugins: their parts as text, and what must find them."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

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
