"""REAM: every expert is merged into one of the K most salient, which take their nearest in turn.

Jha et al. 2026, "REAM: Merging Improves Pruning of Experts in LLMs" (arXiv 2604.04356); formulas as
in its program (github.com/SamsungSAILMontreal/ream) with its default settings. In every layer:

1. The K experts with the highest saliency, here the scores, are centroids. From the most salient
   on, each takes the nearest experts that are still free, until its group has `group_size` members.
2. The distance of two experts is 1 - (a + b) / 2. With m an expert's mean gated output over all
   tokens (softmax over all router logits times the output), a = (cos(m_i, m_j) + 1) / 2. With r an
   expert's router logits over all tokens, divided by their norm, b = 1 - |r_i - r_j| / the greatest
   such distance in the layer.
3. Inner neurons of a member are matched to its centroid's by optimal assignment. The cost of two
   neurons is the Euclidean distance of their activations over sampled tokens plus that of their
   weights (rows of gate and up, column of down) in the layer's 64 principal components times their
   singular values; each of these vectors is divided by its norm first.
4. A group becomes the average of its members' weights, weighted by saliency; a saliency of 0
   counts as the smallest other one, at most 0.5.
5. The router's rows of all others are removed, so that the result is a model of K experts.

Differences: saliency is the REAP score of the paper; the program multiplies outputs that are gated
already by the gate once more. Activations of different experts are compared on the same tokens,
where the program draws other ones for every expert. Statistics come from the full model: the
recalculation after each merged layer (`sequential`) is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

import mbench

from .merging import (
    MeanOutputs,
    RouterProducts,
    TokenSample,
    cosine,
    groups,
    pooled,
    sampled_rows,
    shares,
)

if TYPE_CHECKING:
    import torch

COMPONENTS = 64
"""Principal components in which neurons' weights are compared."""


class NeuronActivations(mbench.Statistic):
    """Activations of every expert's inner neurons for sampled tokens, `inner` [t, N, I]."""

    name = "neuron-activations"
    Params = TokenSample
    params: TokenSample
    combine: ClassVar[Literal["sum", "concatenate"]] = "concatenate"

    def measure(self, batch: mbench.LayerBatch) -> Mapping[str, torch.Tensor]:
        """Return the activations of the sampled tokens in the batch."""
        return {"inner": batch.inner_activations(sampled_rows(batch, self.params)).float()}


class NeuronWeights(mbench.Statistic):
    """Every inner neuron's weights, reduced to principal components: `neurons` [N, I, 64]."""

    name = "neuron-weights"

    def inspect(self, weights: mbench.LayerWeights) -> Mapping[str, torch.Tensor]:
        """Return the reduced weights; with fewer dimensions than 64, all of them."""
        import torch
        from torch.nn.functional import normalize

        experts = []
        for number in range(weights.num_experts):
            expert = weights.expert(number)
            parts = (expert.gate, expert.up, expert.down.T)
            experts.append(torch.cat([part for part in parts if part is not None], dim=1))
        rows = normalize(torch.stack(experts), dim=2)
        reduced = principal_components(rows.flatten(0, 1), COMPONENTS)
        return {"neurons": reduced.view(*rows.shape[:2], -1)}


def principal_components(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Return the centred rows [n, d] along their main axes, times the singular values: [n, r].

    r is `count`, or less if there are fewer. By subspace iteration, because an exact decomposition
    takes minutes for experts of full size.
    """
    import torch

    rows = rows - rows.mean(dim=0)
    count = min(count, *rows.shape)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(rows.shape[1], min(2 * count, *rows.shape), generator=generator)
    basis = rows @ start.to(rows)
    for _ in range(8):
        basis = torch.linalg.qr(basis).Q
        basis = rows @ torch.linalg.qr(rows.T @ basis).Q
    basis = torch.linalg.qr(basis).Q
    _, singular, axes = torch.linalg.svd(basis.T @ rows, full_matrices=False)
    projected: torch.Tensor = rows @ (axes[:count].T * singular[:count])
    return projected


def distances(outputs: np.ndarray, products: np.ndarray) -> np.ndarray:
    """[N, N], of mean gated outputs [N, H] and products of router logits [N, N] (step 2)."""
    similar_outputs = (cosine(outputs @ outputs.T) + 1) / 2
    between_logits = np.sqrt(2 - 2 * cosine(products))
    similar_logits = 1 - between_logits / max(between_logits.max(), np.finfo(float).tiny)
    distance: np.ndarray = 1 - (similar_outputs + similar_logits) / 2
    return distance


def grouped(distance: np.ndarray, centroids: np.ndarray, group_size: int) -> np.ndarray:
    """int64 [N], the centroid of every expert; `centroids` from the most salient on (step 1)."""
    into = np.full(len(distance), -1, dtype=np.int64)
    into[centroids] = centroids
    for centroid in centroids:
        nearest = np.argsort(distance[centroid], kind="stable")
        into[nearest[into[nearest] < 0][: group_size - 1]] = centroid
    return into


def matched_neurons(features: list[np.ndarray], into: np.ndarray) -> np.ndarray:
    """int64 [N, I], the order of every expert's neurons that fits its centroid's (step 3).

    The cost is the sum of Euclidean distances in each of the `features` [N, I, d], after division
    by the norm over d.
    """
    from scipy.optimize import linear_sum_assignment

    scaled = []
    for values in features:
        norms = np.linalg.norm(values, axis=2, keepdims=True)
        scaled.append(values / np.where(norms > 0, norms, 1))
    order = np.tile(np.arange(features[0].shape[1]), (len(into), 1))
    for centroid, members in groups(into):
        for member in members[members != centroid]:
            cost = sum(between(values[centroid], values[member]) for values in scaled)
            _, order[member] = linear_sum_assignment(cost)
    return order


def between(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Euclidean distances [n, m] of vectors [n, d] and [m, d]."""
    squares = (some**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)
    distance: np.ndarray = np.sqrt(np.maximum(squares - 2 * some @ others.T, 0))
    return distance


class ReamParams(TokenSample):
    """The sample for mean outputs, the sizes of groups, and the sample for activations."""

    group_size: int = Field(default=16, ge=1)
    """The most experts that become one, C in the paper."""
    activation_tokens: int = Field(default=256, ge=1)
    """Tokens on which neurons' activations are compared; N times I numbers each are stored."""


class Ream(mbench.MaskBuilder):
    """The selected experts, with all others merged into them, by the scores as saliency."""

    name = "ream"
    Params = ReamParams
    params: ReamParams

    @property
    def needs(self) -> tuple[mbench.Statistic, ...]:
        """Products of router logits, gated outputs, and neurons' activations and weights."""
        sample = self.params.model_dump(include={"tokens", "seed"})
        return (
            RouterProducts(),
            MeanOutputs(**sample, gated=True),
            NeuronActivations(tokens=self.params.activation_tokens, seed=self.params.seed),
            NeuronWeights(),
        )

    def check(self, budget: mbench.Budget) -> None:
        """Raise `Infeasible` where K groups cannot hold all experts."""
        if budget.kept * self.params.group_size < budget.num_experts:
            raise mbench.Infeasible(
                f"{budget.kept} groups of at most {self.params.group_size} (group_size) cannot hold"
                f" {budget.num_experts} experts"
            )

    def build(
        self,
        selection: mbench.Selection,
        scores: Mapping[str, mbench.Scores],
        budget: mbench.Budget,
        candidate: mbench.ExpertMask | None,
    ) -> mbench.ExpertMask:
        """Return the selection and what is merged into it.

        Saliency is the mean of the scores over corpora; other statistics are summed over them.
        """
        products, outputs, activations, weights = self.needs
        logits = pooled(scores, products)["products"]
        gated = pooled(scores, outputs)["output"]
        profiles = [score.profile for score in scores.values()]
        neurons = profiles[0].sums(weights)["neurons"]
        saliency = positive(np.mean([score.values for score in scores.values()], axis=0))
        into = np.empty(saliency.shape, dtype=np.int64)
        order = np.empty((*into.shape, neurons.shape[2]), dtype=np.int64)
        for layer, keep in enumerate(selection.chosen):
            centroids = np.flatnonzero(keep)
            centroids = centroids[np.argsort(-saliency[layer, centroids], kind="stable")]
            distance = distances(gated[layer], logits[layer])
            into[layer] = grouped(distance, centroids, self.params.group_size)
            samples = [profile.samples(activations, layer)["inner"] for profile in profiles]
            inner = np.concatenate(samples).transpose(1, 2, 0)
            order[layer] = matched_neurons([inner, neurons[layer]], into[layer])
        merged = mbench.Merged(into, shares(saliency, into), neurons=order, router="sliced")
        return mbench.ExpertMask(selection.chosen, selection.notes, stand_in=merged)


def positive(saliency: np.ndarray) -> np.ndarray:
    """The saliency [layers, N] with zeros replaced by the layer's smallest other (step 4)."""
    result = saliency.copy()
    for row in result:
        if (row > 0).any():
            row[row <= 0] = min(0.5, row[row > 0].min())
    return result


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The builder above."""
    return [Ream]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """The method `ream`."""
    return [
        mbench.Method(
            "ream",
            scorer="reap",
            builder="ream",
            corpora=1,
            description="merged into the K most salient experts (REAM, arXiv 2604.04356)",
        )
    ]
