"""The cases on which methods are tried, small ones first, so that the first failure is small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from mbench.core.interfaces import Budget, RouterMode
from mbench.testing.synthetic import Kind, SyntheticModel
from mbench.testing.synthetic_layers import Size

SIZES = (Size(1, 4, 2), Size(2, 4, 1), Size(2, 6, 2), Size(3, 8, 2))
CORPORA = ("one", "two", "three")


@dataclass(frozen=True)
class Case:
    """A synthetic model, a budget and how the model is profiled."""

    size: Size
    kept: int
    corpora: int = 1
    """How many, for methods that take any number."""
    kind: Kind = "plain"
    seed: int = 0
    """Of the model and its text."""
    router: RouterMode = "sliced"
    renormalised: bool = False
    fewest: int = 1
    groups: int = 1
    half: bool = False
    """Whether the model is computed in bfloat16."""
    batch_size: int = 3
    shards: int = 4
    renamed: bool = False
    """Whether the same model and corpora are called otherwise."""
    repeated: int = 1
    """How often each corpus is gone through: sums grow by it."""

    @property
    def budget(self) -> Budget:
        """What a mask may keep."""
        return Budget(
            # Not K / N: what is left over is rounded down.
            retain=min(1, (self.kept + 0.6) / self.size.experts),
            kept=self.kept,
            num_layers=self.size.layers,
            num_experts=self.size.experts,
            top_k=self.size.top_k,
            router=self.router,
            fewest=self.fewest,
            groups=self.groups,
        )

    @property
    def model(self) -> SyntheticModel:
        """The model, drawn once for all cases."""
        return _model(self.size, self.kind, self.seed, self.renormalised, self.half)

    def order(self) -> np.ndarray:
        """Other numbers for the experts, int [layers, N], none of which stays where it was."""
        generator = np.random.default_rng(self.seed)
        experts = self.size.experts
        steps = generator.integers(1, experts, self.size.layers)
        return (np.arange(experts)[None, :] + steps[:, None]) % experts

    def __str__(self) -> str:
        """In words, for messages: what differs from the plainest case."""
        words = [str(self.size), f"K = {self.kept}"]
        words += [f"{self.corpora} corpora"] * (self.corpora > 1)
        words += ["preserved router"] * (self.router == "preserved")
        words += ["gates that sum to 1"] * self.renormalised
        words += [f"no layer fewer than {self.fewest}"] * (self.fewest > 1)
        words += [f"a router limited to {self.groups} groups"] * (self.groups > 1)
        words += ["half of the experts never chosen"] * (self.kind == "unused")
        words += ["planted experts"] * (self.kind == "planted")
        words += ["bfloat16"] * self.half
        words += ["other names"] * self.renamed
        words += [f"{self.repeated} times the text"] * (self.repeated > 1)
        return ", ".join([*words, f"model {self.seed}"])


@lru_cache(maxsize=128)
def _model(size: Size, kind: Kind, seed: int, renormalised: bool, half: bool) -> SyntheticModel:
    return SyntheticModel(size, kind, seed, renormalised=renormalised, half=half)


def ladder(sizes: Sequence[Size] = SIZES, seeds: int = 1) -> Iterator[Case]:
    """Cases of growing size: from two kept experts to all but one, and more and more corpora."""
    for number, size in enumerate(sizes):
        some = sorted({2, size.experts // 2, size.experts - 1})
        for seed in range(seeds):
            for kept in some:
                corpora = 1 + (number + kept) % len(CORPORA)
                yield Case(size, kept, corpora=1 if number == 0 else corpora, seed=seed)


def settings(cases: Iterator[Case]) -> Iterator[Case]:
    """Each case, and after it with other kinds of routers."""
    for case in cases:
        yield case
        yield replace(case, renormalised=True)
        yield replace(case, router="preserved")
