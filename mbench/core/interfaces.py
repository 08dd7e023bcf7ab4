"""What a pruning method is made of, and the values that pass between its parts.

A method is a triple: a `Scorer` rates every expert from a `Profile` of the model on one corpus, a
`Selector` chooses experts from the scores of one or more corpora, and a `MaskBuilder` turns the
choice into an `ExpertMask` that keeps exactly K experts in every layer. A method never touches
the model: what it needs from the forward pass it declares as `Statistic`s, and one pass per corpus
collects the union of what all methods need.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict
from pydantic_core import to_jsonable_python

if TYPE_CHECKING:
    import torch

RouterMode = Literal["sliced", "preserved"]
"""What the router does after pruning.

`sliced`: the router's rows of dropped experts are gone, exactly as in a physically pruned model.
`preserved`: retained experts keep the gate values they had in the full model.
"""


class Parameters(BaseModel):
    """Base of a component's parameters: unknown keys are errors, values cannot change later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def plain_parameters(params: BaseModel) -> dict[str, Any]:
    """All fields of a component's parameters as JSON values: equal for equal parameters.

    Raises `ValueError` for a field that has no such form.
    """
    return {name: _plain(getattr(params, name)) for name in type(params).model_fields}


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return plain_parameters(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        # Their own order changes from one process to the next.
        return sorted((_plain(item) for item in value), key=repr)
    return to_jsonable_python(value)


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


@dataclass(frozen=True)
class LayerBatch:
    """Input, routing and outputs of one MoE layer in one forward call, without padding.

    Shapes: T tokens, H hidden size, N routed experts, k experts per token. Routing is the model's
    own decision, never re-derived.
    """

    layer: str
    """Module path of the layer's experts."""
    num_experts: int
    hidden: torch.Tensor
    """[T, H] input of the experts."""
    top_k_index: torch.Tensor
    """[T, k] experts the model routed each token to."""
    top_k_weight: torch.Tensor
    """[T, k] combine weights the model used."""
    output_norm: torch.Tensor
    """[T, k] float32, L2 norm of each routed expert's output before it is weighted."""
    token: torch.Tensor
    """[T] int64, index of each token in the whole corpus, 0 .. total_tokens - 1."""
    total_tokens: int
    """Tokens of the whole corpus, padding excluded; the same in every batch."""
    router_logits: Callable[[], torch.Tensor]
    """Gives [T, N] float32 router logits of the full model; raises `UnsupportedModel` where the
    router has none."""
    expert_outputs: Callable[[torch.Tensor], torch.Tensor]
    """Given row numbers [t], computes the unweighted outputs [t, N, H] of all experts there."""


class Statistic(Component):
    """Something collected in the forward pass over a calibration corpus."""

    combine: ClassVar[Literal["sum", "concatenate"]] = "sum"
    """`sum`: arrays [N, ...] are added in float64, per shard of sequences. `concatenate`: arrays
    [t, ...] of a few sampled tokens are joined in corpus order."""

    @abstractmethod
    def measure(self, batch: LayerBatch) -> Mapping[str, torch.Tensor]:
        """Return this batch's contribution, by array name; the names never vary.

        Tensors [N, ...] that `combine` adds, or [t, ...] for t sampled tokens that it joins.
        """


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
    """identity -> array name -> float64 [shards, layers, N, ...]."""
    load_samples: Callable[[str, int], Mapping[str, np.ndarray]] = field(repr=False)
    """(identity, layer number) -> array name -> [t, ...]."""

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
    """K = floor(rho * N), the experts every layer keeps."""
    num_layers: int
    num_experts: int
    top_k: int
    router: RouterMode = "sliced"


@dataclass(frozen=True)
class Scores:
    """Every expert's score on one corpus; higher is kept."""

    values: np.ndarray
    """float64 [layers, N], finite."""
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
    """The experts that stay, exactly K in every layer."""

    keep: np.ndarray
    """bool [layers, N]."""
    notes: tuple[str, ...] = ()

    @property
    def content_hash(self) -> str:
        """Hash of the kept experts alone: equal masks are evaluated once, whoever made them."""
        layers = [np.flatnonzero(row).tolist() for row in self.keep]
        text = json.dumps([self.keep.shape[1], layers], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def kept_per_group(keep: np.ndarray, groups: int) -> np.ndarray:
    """int [..., groups], the experts that `keep` (bool [..., N]) keeps of each group.

    A router that is limited to groups needs equally many of each; consecutive experts form one.
    """
    counts: np.ndarray = keep.reshape(*keep.shape[:-1], groups, -1).sum(axis=-1)
    return counts


class Scorer(Component):
    """Rates every expert from one corpus's profile."""

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
    """Turns a selection into a mask with exactly `budget.kept` experts per layer."""

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
    """None for methods that look at no corpus, such as random pruning."""
    selector: str | Use = "top-k"
    builder: str | Use = "as-selected"
    candidate: str | None = None
    """Another method whose mask, at the same budget, the builder starts from."""
    corpora: int | None = None
    """How many corpora it takes: 1 where it cannot combine several; None for any number."""
    description: str = ""
