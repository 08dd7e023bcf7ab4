"""Experts that are good and unlike: a determinantal point process, and facility location.

Two experts are alike as far as their unweighted outputs point the same way: c(e, e') is the mean,
over a sample of tokens and over corpora, of the cosine between them, whoever the tokens are routed
to. With q(e) >= 0 an expert's score (the mean over corpora):

    dpp:                maximise  log det L_S,  L = diag(q^a) c diag(q^a), a the `quality`
    facility location:  maximise  sum over all e of q(e) * max over e' in S of max(0, c(e, e'))

over sets of K experts. The first is the likeliest set of a determinantal point process with this
quality and diversity (Kulesza and Taskar 2012, "Determinantal point processes for machine
learning", section 3.1), chosen greedily with the updates of Chen et al. 2018, "Fast greedy MAP
inference for determinantal point process". The second keeps, for every expert, one that stands for
it; greedy choice reaches 1 - 1/e of the best sum (Nemhauser et al. 1978). Choosing experts of a
model like this is our own: arXiv 2605.28207 speaks of D-optimal selection, but its formulas were
not to be had. On the embedded model experts are so unlike that `dpp` keeps what the mean of REAP
keeps, at every budget, with a `quality` of 1 or 0.3; with 0.1 it differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

import mbench

from .merging import VALUES_AT_ONCE, TokenSample, sampled_rows
from .protection import best_first, mean_scores

if TYPE_CHECKING:
    import torch

_NO_VOLUME = 1e-10
"""An expert adds nothing to a determinant if this share of the largest diagonal is left of it."""

_ROUNDING = 1e-9
"""Gains that differ by this share are equal."""


class OutputCosines(mbench.Statistic):
    """Sums over sampled tokens of the cosine of two experts' outputs, `cosines` [N, N].

    An output of 0 has a cosine of 0 with all, itself included. All experts are computed on the
    sample, N times a routed expert's work.
    """

    name = "output-cosines"
    Params = TokenSample
    params: TokenSample

    def measure(self, batch: mbench.LayerBatch) -> Mapping[str, torch.Tensor]:
        """Return this batch's sums."""
        import torch

        rows = sampled_rows(batch, self.params)
        experts = batch.num_experts
        total = torch.zeros(experts, experts, dtype=torch.float64, device=rows.device)
        for part in rows.split(max(1, VALUES_AT_ONCE // (experts * batch.hidden.shape[1]))):
            outputs = batch.expert_outputs(part).float()
            unit = torch.nn.functional.normalize(outputs, dim=-1).transpose(0, 1).flatten(1)
            total += unit @ unit.T
        return {"cosines": total}


def likeliest_greedily(kernel: np.ndarray, count: int) -> list[int]:
    """`count` experts, each adding the most to log det of the kernel [N, N]; ties: lower index.

    It ends early where no expert adds volume any more.
    """
    left = kernel.diagonal().copy()
    rows = np.zeros((0, len(kernel)))  # of the Cholesky factor of the chosen experts, transposed
    chosen: list[int] = []
    least = _NO_VOLUME * left.max()
    while len(chosen) < count and left.max() > least:
        best = int((left >= left.max() * (1 - _ROUNDING)).argmax())
        row = (kernel[best] - rows[:, best] @ rows) / np.sqrt(left[best])
        rows = np.vstack([rows, row])
        left = left - row**2
        chosen.append(best)
        left[chosen] = -np.inf
    return chosen


def representatives(worth: np.ndarray, alike: np.ndarray, count: int) -> list[int]:
    """`count` experts, each adding the most to the facility location sum; ties: lower index.

    `worth` is [N]; `alike` [N, N] >= 0, how well the second expert stands for the first. It ends
    early where no expert adds anything any more.
    """
    served = np.zeros(len(worth))
    chosen: list[int] = []
    while len(chosen) < count:
        gain = worth @ np.maximum(alike - served[:, None], 0)
        gain[chosen] = 0
        if not gain.max() > 0:
            break
        chosen.append(int((gain >= gain.max() * (1 - _ROUNDING)).argmax()))
        served = np.maximum(served, alike[:, chosen[-1]])
    return chosen


class DiverseSelector(mbench.Selector):
    """Base of both rules: K experts per layer from scores and cosines."""

    Params = TokenSample
    params: TokenSample

    @property
    def needs(self) -> tuple[mbench.Statistic, ...]:
        """The cosines."""
        sample = self.params.model_dump(include={*TokenSample.model_fields})
        return (OutputCosines(**sample),)

    def _select(
        self,
        scores: Mapping[str, mbench.Scores],
        budget: mbench.Budget,
        choose: Callable[[np.ndarray, np.ndarray], list[int]],
    ) -> mbench.Selection:
        """K experts of every layer: those that `choose` gives, then the best of the others.

        `choose` is given a layer's scores [N], 1 for its best, and cosines [N, N]. Raises
        `PluginError` where scores are negative.
        """
        values = mean_scores(scores)
        if values.min() < 0:
            raise mbench.PluginError(f"selector {self.name!r} needs scores that are not negative")
        cosines = np.mean([self._cosines(score.profile) for score in scores.values()], axis=0)
        chosen = np.zeros(values.shape, dtype=bool)
        for layer, order in enumerate(best_first(values)):
            first = choose(values[layer] / (values[layer].max() or 1.0), cosines[layer])
            rest = [e for e in order if e not in first]
            chosen[layer, [*first, *rest][: budget.kept]] = True
        return mbench.Selection(chosen)

    def _cosines(self, profile: mbench.Profile) -> np.ndarray:
        """[layers, N, N] means over the tokens of the sample, which the diagonals count."""
        sums = profile.sums(self.needs[0])["cosines"]
        tokens = sums.diagonal(axis1=1, axis2=2).max(axis=1)
        return sums / np.where(tokens > 0, tokens, 1)[:, None, None]


class DppParams(TokenSample):
    """The sample, and what scores weigh against diversity."""

    quality: float = Field(default=1.0, ge=0)
    """Exponent of the scores; 0: diversity alone."""


class Dpp(DiverseSelector):
    """The set of greatest determinant, greedily."""

    name = "dpp"
    Params = DppParams
    params: DppParams

    def select(
        self, scores: Mapping[str, mbench.Scores], budget: mbench.Budget, rng: np.random.Generator
    ) -> mbench.Selection:
        """Return K experts per layer; raises `PluginError` where scores are negative."""

        def choose(quality: np.ndarray, cosines: np.ndarray) -> list[int]:
            weight = quality**self.params.quality
            return likeliest_greedily(weight[:, None] * cosines * weight, budget.kept)

        return self._select(scores, budget, choose)


class FacilityLocation(DiverseSelector):
    """The set that stands best for all experts, greedily."""

    name = "facility-location"

    def select(
        self, scores: Mapping[str, mbench.Scores], budget: mbench.Budget, rng: np.random.Generator
    ) -> mbench.Selection:
        """Return K experts per layer; raises `PluginError` where scores are negative."""

        def choose(worth: np.ndarray, cosines: np.ndarray) -> list[int]:
            return representatives(worth, np.maximum(cosines, 0), budget.kept)

        return self._select(scores, budget, choose)


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The statistic and both selectors."""
    return [OutputCosines, Dpp, FacilityLocation]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """Both rules, with REAP as quality and its sum as what is to be stood for."""
    return [
        mbench.Method(
            "dpp",
            scorer="reap",
            selector="dpp",
            description="good by REAP and unlike in their outputs (determinant)",
        ),
        mbench.Method(
            "facility-location",
            scorer=mbench.Use("reap", {"variant": "sum"}),
            selector="facility-location",
            description="every expert's gate * norm is stood for by one with like outputs",
        ),
    ]
