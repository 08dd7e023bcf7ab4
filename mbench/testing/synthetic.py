"""Tiny Mixture-of-Experts models with experts whose worth is known, profiled by mbench's own code.

Every layer has a router and experts as transformers builds them, so that any statistic can be
collected on them. Layers don't feed each other: what one computes depends on the token, its place
in its sequence and the layer alone, so that renumbered experts compute the very same numbers.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from mbench.core.interfaces import WEIGHTS_ONLY, ExpertMask, Profile, RouterMode, Statistic
from mbench.moe.adapter import MoELayer, find_moe_layers
from mbench.moe.calibration import TokenSequences
from mbench.moe.mask import masked
from mbench.moe.profile import Collected, inspect_weights, profile_model
from mbench.moe.unchanged import ModelChanged, unchanged
from mbench.run.mask_checks import frozen
from mbench.testing.synthetic_layers import (
    COMMON_SIZE,
    LENGTHS,
    SUPER_TOKEN,
    VOCABULARY,
    Size,
    drawn,
)

SHARDS = 4

Kind = Literal["plain", "planted", "unused"]
"""`plain`: no two experts are alike and all are used. `planted`: as `Planted` says. `unused`: one
expert gets all tokens in the first layer, and half of all experts none anywhere."""


@dataclass(frozen=True)
class Planted:
    """Which expert of each layer is which, int [layers]; all others are alike in kind."""

    loud: np.ndarray
    """Chosen often, with outputs four times as large as the others'."""
    quiet: np.ndarray
    """Chosen as often as others, with outputs of almost nothing."""
    twins: np.ndarray
    """[layers, 2]: two experts with the same weights and nearly the same router rows."""
    never: np.ndarray
    """Never chosen."""
    super: np.ndarray
    """Chosen for one token id alone, with outputs a hundred times as large."""


class SyntheticModel:
    """A tiny model of one kind, and the profiles of it; equal seeds give equal models."""

    def __init__(
        self,
        size: Size = COMMON_SIZE,
        kind: Kind = "plain",
        seed: int = 0,
        *,
        renormalised: bool = False,
        half: bool = False,
    ) -> None:
        """Draw the weights.

        Args:
            size: at least 6 experts where they are `planted`.
            kind: of what experts it has.
            seed: of weights and corpora.
            renormalised: whether a token's gates sum to 1.
            half: whether it is computed in bfloat16 instead of float32.
        """
        self.size, self.kind, self.seed = size, kind, seed
        self.model = drawn(size, seed, renormalised)
        self.planted = self._plant() if kind == "planted" else None
        for layer in self.model.blocks:
            layer.gate.weight[:, :2] *= kind == "planted"
        if kind == "unused":
            self._disuse()
        self.model.to(torch.bfloat16 if half else torch.float32)
        self._weights = copy.deepcopy(self.model.state_dict())
        # Found before any mask is applied.
        self._layers = find_moe_layers(self.model)
        self._known: dict[tuple[Any, ...], dict[Any, Collected]] = {}
        self._renumbered: dict[bytes, SyntheticModel] = {}

    @property
    def layers(self) -> list[MoELayer]:
        """The layers as mbench finds them."""
        return self._layers

    @property
    def revision(self) -> str:
        """A hash of its weights, as that of a model's files: other numbers make another model."""
        content = hashlib.sha256()
        for tensor in self._weights.values():
            content.update(tensor.float().numpy().tobytes())
        return content.hexdigest()

    def _plant(self) -> Planted:
        if self.size.experts < 6:
            raise ValueError(f"six experts are planted; the model has {self.size.experts}")
        generator = np.random.default_rng(self.seed)
        order = np.stack([generator.permutation(self.size.experts) for _ in self.model.blocks])
        planted = Planted(order[:, 0], order[:, 1], order[:, 2:4], order[:, 4], order[:, 5])
        for number, layer in enumerate(self.model.blocks):
            router, experts = layer.gate.weight, layer.experts
            router[:, :2] = 0
            router[planted.loud[number], 0] = 1
            experts.down_proj[planted.loud[number]] *= 4
            experts.down_proj[planted.quiet[number]] *= 0.001
            first, second = planted.twins[number]
            for tensor in (experts.gate_up_proj, experts.down_proj):
                tensor[second] = tensor[first]
            router[second] = router[first] + 1e-3 * router[second]
            # Further apart, a softmax in float32 would tell no experts apart.
            router[planted.never[number], 0] = -30
            router[planted.super[number], :2] = torch.tensor([-30.0, 60.0])
            experts.down_proj[planted.super[number]] *= 100
        return planted

    def _disuse(self) -> None:
        """Experts of odd numbers get no token; in the first layer expert 0 gets every one."""
        for number, layer in enumerate(self.model.blocks):
            layer.gate.weight[1::2, 0] = -30
            layer.gate.weight[0, 0] = 30 if number == 0 else 0

    def renumbered(self, order: np.ndarray) -> SyntheticModel:
        """The same model with other numbers: expert `order[l, e]` of layer l is now called e."""
        if order.tobytes() in self._renumbered:
            return self._renumbered[order.tobytes()]
        other = copy.copy(self)
        other.model, other._known = copy.deepcopy(self.model), {}
        for layer, row in zip(other.model.blocks, order, strict=True):
            rows = torch.from_numpy(row)
            for tensor in (layer.gate.weight, layer.experts.gate_up_proj, layer.experts.down_proj):
                tensor.copy_(tensor[rows].clone())
        other._layers = find_moe_layers(other.model)
        other._weights = copy.deepcopy(other.model.state_dict())
        self._renumbered[order.tobytes()] = other
        return other

    def corpus(self, name: str) -> TokenSequences:
        """Sequences that differ with the name, of a few words that each corpus prefers.

        What follows a dot in a name changes nothing.
        """
        generator = np.random.default_rng([self.seed, *name.partition(".")[0].encode()])
        worth = generator.gamma(0.5, size=VOCABULARY) + 0.02
        worth[0] = 0  # padding
        worth[SUPER_TOKEN] = worth.sum() / 20
        ids = generator.choice(VOCABULARY, (len(LENGTHS), max(LENGTHS)), p=worth / worth.sum())
        ids[0, 0] = SUPER_TOKEN
        return TokenSequences(ids.astype(np.int64), np.array(LENGTHS, dtype=np.int64))

    def profile(
        self,
        statistics: Sequence[Statistic],
        corpus: str = "one",
        *,
        batch_size: int = 3,
        shards: int = SHARDS,
        router: RouterMode = "sliced",
        again: bool = False,
    ) -> Profile:
        """Collect statistics as a run does; arrays are read-only.

        Args:
            statistics: what to collect.
            corpus: name of the text; equal names mean equal texts, `weights` none at all.
            batch_size: sequences in one forward call.
            shards: groups of sequences whose sums are kept apart.
            router: what the profile says of the suite's mode.
            again: also what is known already.

        Raises `PluginError` for a statistic that breaks its contract, and `UnsupportedModel` where
        it says that it cannot treat the model.
        """
        collected = self._collect(statistics, corpus, batch_size, shards, again)
        return Profile(
            corpus=corpus,
            layers=tuple(layer.path for layer in self.layers),
            num_experts=self.size.experts,
            top_k=self.size.top_k,
            tokens=0 if corpus == WEIGHTS_ONLY else collected.tokens,
            router=router,
            shard_sums=collected.sums,
            load_samples=lambda identity, layer: collected.samples[identity].layer(layer),
            model="synthetic",
            revision=self.revision,
        )

    def outputs(
        self, corpus: str, mask: ExpertMask, router: RouterMode = "sliced"
    ) -> list[np.ndarray]:
        """Each layer's outputs under a mask, float64 [tokens, H], padding left out.

        Raises what `mbench.moe.mask.masked` raises.
        """
        text = self.corpus(corpus)
        inside = torch.arange(text.ids.shape[1]) < torch.from_numpy(text.lengths)[:, None]
        with masked(self.layers, mask, router), torch.no_grad():
            found = self.model(input_ids=torch.from_numpy(text.ids))
        return [each[inside].double().numpy() for each in found]

    def _collect(
        self,
        statistics: Sequence[Statistic],
        corpus: str,
        batch_size: int,
        shards: int,
        again: bool,
    ) -> Collected:
        known = {} if again else self._known.setdefault((corpus, batch_size, shards), {})
        keys = [(type(each), each.identity) for each in statistics]
        new = [each for key, each in zip(keys, statistics, strict=True) if key not in known]
        if new:
            found = self._pass(new, corpus, batch_size, shards)
            known.update({(type(each), each.identity): found for each in new})
        sums, samples = {}, {}
        for kind, identity in keys:
            found = known[kind, identity]
            if identity in found.failures:
                raise found.failures[identity]
            # A method that writes into it spoils nothing for others.
            sums[identity] = dict(found.sums.get(identity, {}))
            if identity in found.samples:
                samples[identity] = found.samples[identity]
        return Collected(sums, samples, {}, self.corpus(corpus).tokens)

    def _pass(
        self, statistics: Sequence[Statistic], corpus: str, batch_size: int, shards: int
    ) -> Collected:
        """Collect statistics, in arrays that nobody can change."""
        try:
            with unchanged(self.model):
                if corpus == WEIGHTS_ONLY:
                    found = inspect_weights(self.layers, statistics)
                else:
                    found = profile_model(
                        self.model,
                        self.layers,
                        self.corpus(corpus),
                        statistics,
                        batch_size=batch_size,
                        shards=shards,
                    )
        except ModelChanged:
            # Others use the model, too.
            self.model.load_state_dict(self._weights)
            for module in self.model.modules():
                module._forward_hooks.clear()
                module._forward_pre_hooks.clear()
            raise
        for arrays in found.sums.values():
            arrays.update({name: frozen(array) for name, array in arrays.items()})
        return found
