"""What a pruning method is made of, and the values that pass between its parts.

A method is a triple: a `Scorer` rates every expert from a `Profile` of the model on one corpus, a
`Selector` chooses experts from the scores of one or more corpora, and a `MaskBuilder` turns the
choice into an `ExpertMask` that keeps K experts in every layer, or K on average where the builder
says so. A method never touches the model: what it needs of weights and forward passes it declares
as `Statistic`s, and one pass per corpus collects the union of what all methods need. A builder
that has to try masks is a `MaskSearch` (see `mbench.core.search`).
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from mbench.core.layer_data import LayerBatch, LayerWeights
from mbench.core.parameters import Parameters, plain_parameters
from mbench.core.stand_ins import StandIn

if TYPE_CHECKING:
    import torch

RouterMode = Literal["sliced", "preserved"]
"""What the router does after pruning.

`sliced`: the router's rows of dropped experts are gone, exactly as in a physically pruned model.
`preserved`: retained experts keep the gate values they had in the full model.
"""


class Component(ABC):
    """Base of statistics, scorers, selectors and mask builders.

    Subclasses set `name`, which is how suites refer to them, and may replace `Params` by their own
    subclass of `Parameters`; the values a suite gives arrive in `self.params`.
    """

    name: ClassVar[str]
    Params: ClassVar[type[Parameters]] = Parameters

    def __init__(self, params: Any = None, **values: Any) -> None:
        """Take a ready `Params` object, or its values as keywords."""
        self.params: Any = self.Params(**values) if params is None else params

    @property
    def needs(self) -> tuple[Statistic, ...]:
        """The statistics that must be in the profile this component will be given."""
        return ()

    def check(self, budget: Budget) -> None:
        """Raise `Infeasible` if this component cannot work at `budget`; called before any pass."""

    def notes(self, budget: Budget) -> tuple[str, ...]:
        """What a reader of the plan must know at `budget`, e.g. that a parameter is clamped."""
        return ()

    @property
    def identity(self) -> str:
        """Name, class and parameters as JSON: equal for what does the same in this process."""
        kind = type(self)
        parts = [self.name, f"{kind.__module__}:{kind.__qualname__}"]
        return json.dumps([*parts, plain_parameters(self.params)], sort_keys=True)


class Statistic(Component):
    """Something collected once per corpus: from the forward pass, from the weights, or both.

    A subclass implements `measure`, `inspect`, or both under different names of arrays.
    """

    combine: ClassVar[Literal["sum", "concatenate"]] = "sum"
    """`sum`: measured arrays [N, ...] are added in float64, per shard of sequences. `concatenate`:
    arrays [t, ...] of a few sampled tokens are joined in corpus order."""

    def measure(self, batch: LayerBatch) -> Mapping[str, torch.Tensor]:
        """Return this batch's contribution, by array name; the names never vary.

        Tensors [N, ...] that `combine` adds, or [t, ...] for t sampled tokens that it joins.
        """
        return {}

    def sampled_tokens(self, total_tokens: int) -> np.ndarray | None:
        """Return the corpus's tokens on which `measure` asks for the outputs of all experts.

        They are then computed together with the routed experts, which costs far less than to
        compute them afterwards, and given for `batch.expert_outputs(batch.sampled)`. With
        `combine = "concatenate"`, all arrays have exactly these tokens.

        Args:
            total_tokens: of the corpus, padding excluded.

        Returns:
            Indices [t] int64, ascending, each once; None where `measure` asks for none, or for
            others.
        """
        return None

    def inspect(self, weights: LayerWeights) -> Mapping[str, torch.Tensor]:
        """Return what is read from a layer's weights, by array name, tensors [N, ...].

        It is called once per layer, before any text. A statistic with `inspect` alone serves
        methods that look at no text (`Method(corpora=0)`). Only for `combine = "sum"`.
        """
        return {}

    @classmethod
    def measures(cls) -> bool:
        """Whether it looks at text."""
        return cls.measure is not Statistic.measure

    @classmethod
    def inspects(cls) -> bool:
        """Whether it looks at weights."""
        return cls.inspect is not Statistic.inspect

    @property
    def problem(self) -> str:
        """Why it cannot be collected, in one line; empty where it can."""
        if not (self.measures() or self.inspects()):
            return f"statistic {self.name!r} implements neither `measure` nor `inspect`"
        if self.inspects() and self.combine != "sum":
            # What is read of weights is no sample of tokens.
            return f'statistic {self.name!r}: `inspect` is only for `combine = "sum"`'
        return ""


WEIGHTS_ONLY = "weights"
"""The name under which a method that looks at no text finds its one profile."""


@dataclass(frozen=True)
class Profile:
    """The statistics of one model on one corpus."""

    corpus: str
    layers: tuple[str, ...]
    """Module paths of the MoE layers, in model order."""
    num_experts: int
    top_k: int
    tokens: int
    """Calibration tokens counted, padding excluded."""
    router: RouterMode
    """The suite's router mode, for scorers that simulate pruning."""
    shard_sums: Mapping[str, Mapping[str, np.ndarray]] = field(repr=False)
    """identity -> array name -> float64 [shards, layers, N, ...]; [1, layers, N, ...] for what was
    read from weights."""
    load_samples: Callable[[str, int], Mapping[str, np.ndarray]] = field(repr=False)
    """(identity, layer number) -> array name -> [t, ...]."""
    model: str = ""
    """Name of the model in the suite."""
    revision: str = ""
    """Of its content: the hub's commit, or a hash of its files."""
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0), repr=False)
    """For scorers that say `stochastic = True`; others must not draw from it."""

    def sums(self, statistic: Statistic) -> dict[str, np.ndarray]:
        """Totals over the corpus, float64 [layers, N, ...] by array name."""
        return {name: array.sum(axis=0) for name, array in self.shards(statistic).items()}

    def shards(self, statistic: Statistic) -> Mapping[str, np.ndarray]:
        """The same per shard of sequences, float64 [shards, layers, N, ...]: for resampling."""
        if statistic.identity not in self.shard_sums:
            raise KeyError(f"{statistic.name} was not collected: add it to `needs`")
        return self.shard_sums[statistic.identity]

    def samples(self, statistic: Statistic, layer: int) -> Mapping[str, np.ndarray]:
        """Arrays [t, ...] of a `concatenate` statistic in one layer, loaded when asked for."""
        return self.load_samples(statistic.identity, layer)


@dataclass(frozen=True)
class Budget:
    """How much of which model a mask keeps."""

    retain: float
    """Retain ratio rho in (0, 1]."""
    kept: int
    """K = floor(rho * N), the experts every layer keeps, or keeps on average."""
    num_layers: int
    num_experts: int
    top_k: int
    router: RouterMode = "sliced"
    fewest: int = 1
    """The least that any layer may keep: what the model's router needs to choose from."""
    groups: int = 1
    """Groups of consecutive experts of which a router that is limited to groups needs equally many
    kept in each; 1 for all other routers."""

    @property
    def total(self) -> int:
        """K times the layers, the experts that the whole mask keeps."""
        return self.kept * self.num_layers


@dataclass(frozen=True)
class Scores:
    """Every expert's score on one corpus; higher is kept."""

    values: np.ndarray
    """float64 [layers, N], finite; all 0 where the method has no scorer."""
    profile: Profile

    def ranking(self) -> np.ndarray:
        """[layers, N] experts from best to worst, equal scores by lower index."""
        return np.argsort(-self.values, axis=1, kind="stable")


@dataclass(frozen=True)
class Selection:
    """A selector's choice, of any number of experts per layer: the mask builder makes it K."""

    chosen: np.ndarray
    """bool [layers, N]."""
    notes: tuple[str, ...] = ()
    """What a reader of the results must know, e.g. that a protection budget was clamped."""


@dataclass(frozen=True)
class ExpertMask:
    """The experts that stay, and what stands in for the others.

    K in every layer, or K on average if the builder's `layers` is `any`.
    """

    keep: np.ndarray
    """bool [layers, N]."""
    notes: tuple[str, ...] = ()
    stand_in: StandIn | None = None
    """None: the others are gone."""

    @property
    def content_hash(self) -> str:
        """Hash of what is kept and what stands in: equal masks are evaluated once."""
        layers = [np.flatnonzero(row).tolist() for row in self.keep]
        content: list[Any] = [self.keep.shape[1], layers]
        if self.stand_in is not None:
            content.append(self.stand_in.digest)
        text = json.dumps(content, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def kept_per_group(keep: np.ndarray, groups: int) -> np.ndarray:
    """int [..., groups], the experts that `keep` (bool [..., N]) keeps of each group.

    A router that is limited to groups needs equally many of each; consecutive experts form one.
    """
    counts: np.ndarray = keep.reshape(*keep.shape[:-1], groups, -1).sum(axis=-1)
    return counts


class Scorer(Component):
    """Rates every expert from one corpus's profile."""

    stochastic: ClassVar[bool] = False
    """Whether `score` draws from `profile.rng`; only then does the seed distinguish results."""

    @abstractmethod
    def score(self, profile: Profile) -> np.ndarray:
        """Return finite float64 [layers, N]; higher is kept."""


class Selector(Component):
    """Chooses experts from the scores of one or more corpora."""

    stochastic: ClassVar[bool] = False
    """Whether `select` draws from `rng`; only then does the seed distinguish results."""

    @abstractmethod
    def select(
        self, scores: Mapping[str, Scores], budget: Budget, rng: np.random.Generator
    ) -> Selection:
        """Return the choice. `scores` is ordered as the suite lists the corpora."""


class MaskBuilder(Component):
    """Turns a selection into a mask with `budget.kept` experts per layer."""

    layers: ClassVar[Literal["equal", "any"]] = "equal"
    """`equal`: every layer keeps `budget.kept`. `any`: all layers together keep `budget.total`, and
    none fewer than `budget.fewest`."""

    takes_candidate: ClassVar[bool] = False
    """Whether `build` starts from another method's mask, which a suite then must name."""

    @abstractmethod
    def build(
        self,
        selection: Selection,
        scores: Mapping[str, Scores],
        budget: Budget,
        candidate: ExpertMask | None,
    ) -> ExpertMask:
        """Return the mask; `candidate` is the mask of the method this one builds upon, if any."""


@dataclass(frozen=True)
class Use:
    """A component by name, with the parameters that differ from its defaults."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A named triple that suites can list; a suite may change any part of it."""

    name: str
    scorer: str | Use | None = None
    """None for methods that rate no expert, such as random pruning."""
    selector: str | Use = "top-k"
    builder: str | Use = "as-selected"
    candidate: str | None = None
    """Another method whose mask, at the same budget, the builder starts from."""
    corpora: int | None = None
    """How many corpora it takes: 1 where it cannot combine several; None for any number; 0 where
    it looks at no text, only at weights."""
    description: str = ""
