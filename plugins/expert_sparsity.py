"""ExpertSparsity: keep the experts that reconstruct every layer's output best.

Lu et al. 2024, "Not All Experts are Equal: Efficient Expert Pruning and Skipping for
Mixture-of-Experts Large Language Models", is the candidate method of arXiv 2607.01710. Layers are
pruned independently, with inputs from the full model. The original tries all sets of experts,
possible for 8 of them; here backward elimination, exchanges and restarts search among more, and
find the best of all sets in 98.8 % of 333 small random layers under a sliced router, at worst 6 %
above it (without restarts 85.0 %, at worst 23 %).

One statistic serves scorer and builder. Give both the same `tokens`, `held_out` and `seed`, in a
suite file by an anchor and an alias; different values are collected separately.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

import mbench

from .gram_statistics import Gates, GramStatistics, packed_size, renormalises
from .reconstruction import best_subset, elimination_order, refine, refine_again

if TYPE_CHECKING:
    import torch

VALUES_AT_ONCE = 1 << 26
"""Numbers of expert outputs in memory at a time: 256 MiB in float32."""


class SampleParams(mbench.Parameters):
    """The random sample of the corpus's tokens that the reconstruction is computed on."""

    tokens: int = Field(default=8192, ge=1)
    """Tokens on which experts are chosen."""
    held_out: int = Field(default=1024, ge=0)
    """Further tokens, on which only the error of the choice is measured."""
    seed: int = Field(default=0, ge=0)
    """Seed of the sample."""


@functools.lru_cache(maxsize=8)
def sample_roles(total: int, tokens: int, held_out: int, seed: int) -> np.ndarray:
    """int8 [total]: 1 for tokens to choose on, 2 for held-out tokens, 0 for all others.

    A corpus with fewer tokens than `tokens` + `held_out` is divided in their ratio.
    """
    wanted = tokens + held_out
    if total < wanted:
        held_out = total * held_out // wanted
        tokens = total - held_out
    order = np.random.default_rng(seed).permutation(total)
    roles = np.zeros(total, dtype=np.int8)
    roles[order[:tokens]] = 1
    roles[order[tokens : tokens + held_out]] = 2
    roles.flags.writeable = False
    return roles


class ReconstructionSample(mbench.Statistic):
    """Router logits, and inner products of all experts' unweighted outputs, of sampled tokens."""

    name = "reconstruction-sample"
    Params = SampleParams
    params: SampleParams
    combine: ClassVar[Literal["sum", "concatenate"]] = "concatenate"

    def _roles(self, total_tokens: int) -> np.ndarray:
        return sample_roles(total_tokens, **self.params.model_dump())

    def sampled_tokens(self, total_tokens: int) -> np.ndarray:
        """The tokens to choose on, and the held-out ones."""
        return np.flatnonzero(self._roles(total_tokens))

    def measure(self, batch: mbench.LayerBatch) -> Mapping[str, torch.Tensor]:
        """Return arrays of the t sampled tokens in the batch.

        `router_logits` [t, N]; `gram` [t, N (N + 1) / 2], the upper triangle of the inner
        products; `top_k_index` and `top_k_weight` [t, k]; `token` [t]; `held_out` bool [t]. Raises
        `UnsupportedModel` where the router has no logits.
        """
        import torch

        rows, experts = batch.sampled, batch.num_experts
        roles = self._roles(batch.total_tokens)[batch.start : batch.start + len(batch.hidden)]
        upper = torch.triu_indices(experts, experts, device=rows.device)
        grams = [torch.empty(0, packed_size(experts), device=rows.device)]
        at_once = max(1, VALUES_AT_ONCE // (experts * batch.hidden.shape[1]))
        for part in (rows,) if len(rows) <= at_once else rows.split(at_once):
            outputs = batch.expert_outputs(part).float()
            grams.append((outputs @ outputs.mT)[:, upper[0], upper[1]])
        return {
            "router_logits": batch.router_logits()[rows].float(),
            "gram": torch.cat(grams),
            "top_k_index": batch.top_k_index[rows],
            "top_k_weight": batch.top_k_weight[rows].float(),
            "token": batch.token[rows],
            "held_out": torch.from_numpy(roles[roles > 0] == 2),
        }


def sample_of(params: SampleParams) -> ReconstructionSample:
    """The sample that parameters ask for, whatever else they hold."""
    return ReconstructionSample(**params.model_dump(include={*SampleParams.model_fields}))


def layer_statistics(
    profile: mbench.Profile, layer: int, sample: ReconstructionSample
) -> tuple[GramStatistics, GramStatistics | None, np.ndarray]:
    """One layer on the tokens to choose on, on held-out tokens if any, and indices of the former.

    Raises `UnsupportedModel` for a router whose gates are not those that the search simulates.
    """
    arrays = profile.samples(sample, layer)
    try:
        renormalised = renormalises(
            arrays["router_logits"], arrays["top_k_index"], arrays["top_k_weight"]
        )
    except ValueError as error:
        raise mbench.UnsupportedModel(
            f"{profile.layers[layer]}: the reconstruction search is not defined for this router:"
            f" {error}"
        ) from error
    gates: Gates = "retained" if profile.router == "sliced" else "full"
    if renormalised:
        gates = "renormalised"
    held_out = np.asarray(arrays["held_out"])

    def part(rows: np.ndarray) -> GramStatistics:
        return GramStatistics(
            arrays["router_logits"][rows], arrays["gram"][rows], profile.top_k, gates
        )

    return part(~held_out), part(held_out) if held_out.any() else None, arrays["token"][~held_out]


class Reconstruction(mbench.Scorer):
    """The step at which backward elimination drops an expert, from 0; N - 1 for the last one."""

    name = "reconstruction"
    Params = SampleParams
    params: SampleParams

    @property
    def needs(self) -> tuple[ReconstructionSample]:
        """The sample."""
        return (ReconstructionSample(self.params),)

    def score(self, profile: mbench.Profile) -> np.ndarray:
        """Return float64 [layers, N]; raises `UnsupportedModel` as `layer_statistics` does."""
        scores = np.empty((len(profile.layers), profile.num_experts))
        for layer, row in enumerate(scores):
            statistics, _, _ = layer_statistics(profile, layer, self.needs[0])
            row[elimination_order(statistics)] = np.arange(profile.num_experts)
        return scores


class RefinedParams(SampleParams):
    """The sample, and how sets of experts are searched and compared."""

    search: Literal["auto", "backward", "enumerate"] = "auto"
    """`backward` improves the selection by exchanges; `enumerate` tries every set; `auto`
    enumerates where there are at most `enumerate_limit` sets."""
    enumerate_limit: int = Field(default=1000, ge=1)
    """Sets per layer that `enumerate` may try."""
    restarts: int = Field(default=5, ge=0)
    """How often the search by exchanges starts again from a disturbed set, see
    `reconstruction.refine_again`; its random numbers follow from `seed` and the layer's number. At
    60 experts and 8192 tokens, 5 of them take 2 to 7 s of one core a layer and budget."""
    loss: Literal["squared", "original"] = "squared"
    """`squared`: J, the sum of squared errors over tokens. `original`: the sum over batches of the
    errors' Frobenius norm, not squared, as in Lu et al.; only by enumeration. It equals theirs if
    the sample is the whole corpus, with `held_out: 0`."""
    batch_tokens: int = Field(default=2048, ge=1)
    """Tokens of the corpus per batch in the `original` loss."""

    @model_validator(mode="after")
    def _original_enumerates(self) -> RefinedParams:
        if self.loss == "original" and self.search == "backward":
            raise ValueError("loss: original needs search: enumerate (or auto)")
        return self


class ReconstructionRefined(mbench.MaskBuilder):
    """The selection improved by swapping experts, or the best of all sets where they are few."""

    name = "reconstruction-refined"
    Params = RefinedParams
    params: RefinedParams

    @property
    def needs(self) -> tuple[ReconstructionSample]:
        """The sample."""
        return (sample_of(self.params),)

    def _enumerates(self, budget: mbench.Budget) -> bool:
        few = math.comb(budget.num_experts, budget.kept) <= self.params.enumerate_limit
        must = self.params.search == "enumerate" or self.params.loss == "original"
        return must or (few and self.params.search == "auto")

    def check(self, budget: mbench.Budget) -> None:
        """Raise `Infeasible` where more sets than allowed would have to be enumerated."""
        subsets = math.comb(budget.num_experts, budget.kept)
        if self._enumerates(budget) and subsets > self.params.enumerate_limit:
            raise mbench.Infeasible(
                f"there are {subsets:,} sets of {budget.kept} of {budget.num_experts} experts, more"
                f" than enumerate_limit: {self.params.enumerate_limit}"
            )

    def build(
        self,
        selection: mbench.Selection,
        scores: Mapping[str, mbench.Scores],
        budget: mbench.Budget,
        candidate: mbench.ExpertMask | None,
    ) -> mbench.ExpertMask:
        """Return K experts per layer, noting what is lost on held-out tokens.

        Raises `PluginError` unless there is one corpus, `UnsupportedModel` as `layer_statistics`.
        """
        if len(scores) != 1:
            raise mbench.PluginError(f"builder {self.name!r} takes one corpus, got {len(scores)}")
        (profile,) = (score.profile for score in scores.values())
        keep = selection.chosen.copy()
        losses, total_swaps, improved, measured_on = [], 0, 0, ""
        for layer in range(budget.num_layers):
            choosing, held_out, tokens = layer_statistics(profile, layer, self.needs[0])
            if self._enumerates(budget):
                keep[layer] = best_subset(choosing, budget.kept, self._objective(tokens))
            else:
                keep[layer], swaps = refine(choosing, keep[layer])
                rng = np.random.default_rng([self.params.seed, layer])
                keep[layer], better = refine_again(choosing, keep[layer], self.params.restarts, rng)
                total_swaps += swaps
                improved += better > 0
            measured = held_out or choosing
            losses.append(measured.relative_loss(keep[layer]))
            kind = "held-out tokens" if held_out else "tokens that the experts were chosen on"
            measured_on = f"{len(measured.energy):,} {kind}"
        if self._enumerates(budget):
            subsets = math.comb(budget.num_experts, budget.kept)
            search = f"best of all {subsets:,} sets per layer, {self.params.loss} loss"
        else:
            search = f"{total_swaps} swaps after the selection, {budget.num_layers} layers"
            if self.params.restarts:
                search += (
                    f"; {self.params.restarts} restarts found better sets in {improved} of them"
                )
        notes = [
            f"relative reconstruction error {np.mean(losses):.4g} on {measured_on}, mean of layers",
            f"reconstruction search: {search}",
        ]
        wanted = self.params.tokens + self.params.held_out
        if profile.tokens < wanted:
            notes.append(
                f"reconstruction sample: all {profile.tokens:,} tokens of {profile.corpus}, fewer"
                f" than the {wanted:,} asked for"
            )
        return mbench.ExpertMask(keep, (*selection.notes, *notes))

    def _objective(self, tokens: np.ndarray) -> Callable[[np.ndarray], float]:
        """The loss as a function of squared errors [T], for tokens [T] with these indices."""
        if self.params.loss == "squared":
            return np.sum
        batch = tokens // self.params.batch_tokens
        # Rounding can leave an error slightly below 0.
        return lambda errors: np.sqrt(np.maximum(np.bincount(batch, errors), 0)).sum()


@mbench.hookimpl
def mbench_components() -> list[type[mbench.Component]]:
    """The statistic, the scorer and the builder above."""
    return [ReconstructionSample, Reconstruction, ReconstructionRefined]


@mbench.hookimpl
def mbench_methods() -> list[mbench.Method]:
    """The method `expert-sparsity`."""
    return [
        mbench.Method(
            "expert-sparsity",
            scorer="reconstruction",
            selector="top-k",
            builder="reconstruction-refined",
            corpora=1,
            description="least error of every layer's output (Lu et al. 2024)",
        )
    ]
