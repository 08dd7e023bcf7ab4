"""What a pruned checkpoint is: its experts, what else it changes, which masks it is like."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mbench.core.errors import Damaged, ModelNotFound, UnsupportedModel, did_you_mean
from mbench.core.interfaces import ExpertMask
from mbench.core.recognised import Recognised
from mbench.plan.plugin_loading import load_registry
from mbench.run.environment import set_up_libraries
from mbench.storage import artefacts
from mbench.storage.checkpoints import (
    HINT,
    Checkpoint,
    find_checkpoint,
    model_key,
    naming_place,
)
from mbench.storage.housekeeping import Stored, contents
from mbench.storage.inputs import Inputs
from mbench.storage.mask_json import mask_from_json
from mbench.storage.store import Store

NEAREST = 3
"""Known masks that are told where none is the same."""


@dataclass(frozen=True)
class KnownMask:
    """A mask of the same full model in the store, beside that of a checkpoint."""

    label: str
    """The model, budget, method and seed that it was made for."""
    common: float
    """Share of the experts kept by the one that keeps fewer which the other keeps, too."""
    chance: float
    """The share to be expected of masks drawn at random with as many experts in each layer."""
    deviation: float
    """Standard deviation of that share."""
    is_same: bool
    """Whether it is the checkpoint's mask, with nothing in the place of dropped experts."""


@dataclass(frozen=True)
class Identified:
    """What a pruned checkpoint is, beside the full one."""

    base: str
    """Directory or hub id, with its commit, of the full model."""
    pruned: str
    """Of the pruned one."""
    layers: tuple[str, ...]
    """Module paths of the full model's MoE layers."""
    num_experts: int
    """Of each layer of the full model."""
    found: Recognised
    """Kept experts, what differs, and problems."""
    known: tuple[KnownMask, ...]
    """Masks of the same full model in the store, the likest first."""

    @property
    def mask(self) -> ExpertMask | None:
        """Its mask; None where it is no selection of the full model's experts."""
        if self.found.keep is None:
            return None
        notes = tuple(f"the checkpoint differs in: {each}" for each in self.found.differs)
        return ExpertMask(self.found.keep, notes)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        mask = self.mask
        kept = None
        if mask is not None:
            rows = zip(self.layers, mask.keep, strict=True)
            kept = {layer: np.flatnonzero(row).tolist() for layer, row in rows}
        orders = zip(self.layers, self.found.order, strict=False)
        return {
            "base": self.base,
            "pruned": self.pruned,
            "num_experts": self.num_experts,
            "kept": kept,
            "order": {layer: list(order) for layer, order in orders},
            "mask": None if mask is None else mask.content_hash,
            "is_mask": self.found.is_mask,
            "differs": list(self.found.differs),
            "problems": list(self.found.problems),
            "known_masks": [dict(vars(each)) for each in self.known],
        }


def identified(
    base: str | Path,
    pruned: str | Path,
    plugin_files: Sequence[Path],
    store: Store,
    advance: Callable[[int, int], object] = lambda done, of: None,
) -> Identified:
    """Compare two checkpoints, each a directory, a hub id (with @REVISION) or a plugin's model.

    `advance` is told after each layer how many of how many are compared.

    Raises `ModelNotFound` or `UnsupportedModel` for what is no pair of such checkpoints.
    """
    from mbench.moe.config import read_config
    from mbench.moe.load import describe
    from mbench.moe.recognition.recognise import recognise

    set_up_libraries()
    models = load_registry(plugin_files).models
    inputs = Inputs(store)
    full, small = (_find(str(each), models, inputs) for each in (base, pruned))
    folders = full.all_files(), small.all_files()
    with naming_place(folders[0], full.place), naming_place(folders[1], small.place):
        facts, count = describe(str(folders[0])), read_config(str(folders[1]), False).num_experts
        if count is not None and count > facts.num_experts:
            raise UnsupportedModel(
                f"{_shown(small)} has {count} experts in a layer, {_shown(full)} has"
                f" {facts.num_experts}: the full model comes first"
            )
        found = recognise(*folders, advance)
    return Identified(
        base=_shown(full),
        pruned=_shown(small),
        layers=facts.layers,
        num_experts=facts.num_experts,
        found=found,
        known=_known(store, full, found.keep, facts.layers),
    )


def _find(place: str, models: Mapping[str, Path], inputs: Inputs) -> Checkpoint:
    if place in models and not Path(place).exists():
        return find_checkpoint(str(models[place]), None, inputs)
    if Path(place).expanduser().exists() or place.startswith((".", "/", "~")):
        return find_checkpoint(place, None, inputs)
    hub_id, _, revision = place.partition("@")
    try:
        return find_checkpoint(hub_id, revision or None, inputs)
    except ModelNotFound as error:
        known = f"nor is there such a directory, or a plugin's model ({', '.join(models)})"
        known += did_you_mean(place, models)
        raise ModelNotFound(str(error).replace(HINT, known)) from None


def _shown(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.place}@{checkpoint.revision}" if checkpoint.revision else checkpoint.place


def _known(
    store: Store, full: Checkpoint, keep: np.ndarray | None, layers: tuple[str, ...]
) -> tuple[KnownMask, ...]:
    """The store's masks of the same full model; its files are hashed only where there are masks."""
    kinds: tuple[artefacts.Kind, ...] = ("masks",)
    stored = contents(store, kinds)
    if keep is None or not stored:
        return ()
    content, ours = model_key(full), ExpertMask(keep).content_hash
    found: dict[tuple[str, str], KnownMask] = {}
    for label, mask in _masks(stored, content, layers):
        if mask.keep.shape == keep.shape:
            same = mask.content_hash == ours
            found[label, mask.content_hash] = KnownMask(label, *_alike(keep, mask.keep), same)
    return tuple(sorted(found.values(), key=lambda each: (-each.common + each.chance, each.label)))


def _masks(
    stored: Sequence[Stored], content: str, layers: tuple[str, ...]
) -> Iterator[tuple[str, ExpertMask]]:
    for each in stored:
        try:
            artefact = artefacts.read_json(each.path, each.key.digest)
        except (Damaged, FileNotFoundError):
            continue
        record = artefact.record
        label = str(record.get("label", ""))
        if record.get("kind") == "mask" and record["model"]["content"] == content:
            yield label, mask_from_json(artefact.content, layers)
        elif record.get("kind") == "recognised" and record["model"] == content:
            keep = Recognised.from_json(artefact.content).keep
            if keep is not None:
                yield f"{label} (a published checkpoint)", ExpertMask(keep)


def _alike(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Share of kept experts in common, what chance gives, and its standard deviation."""
    total = a.shape[1]
    ours, theirs = a.sum(axis=1).astype(float), b.sum(axis=1).astype(float)
    fewer = min(ours.sum(), theirs.sum())
    # Hypergeometric, layer by layer.
    mean = ours * theirs / total
    variance = mean * (total - ours) * (total - theirs) / (total * (total - 1))
    common = float((a & b).sum())
    return common / fewer, float(mean.sum()) / fewer, float(np.sqrt(variance.sum())) / fewer
