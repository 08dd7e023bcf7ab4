"""Each treated family and variant as a model that is built once in a process, and masks of it."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from helpers.family_models import COMPOSITE, FAMILIES, VARIANTS, tiny_model
from helpers.tiny_models import random_sequences
from mbench.moe.adapter import find_moe_layers

SEQUENCES = random_sequences([9, 12, 5])
IDS = torch.from_numpy(random_sequences([12, 12]).ids)
TREATED = [*FAMILIES, *(name for name, text in COMPOSITE.items() if text in FAMILIES)]
CASES = {name: (name, {}) for name in TREATED} | VARIANTS


@cache
def model_and_layers(case):
    model_type, changes = CASES[case]
    model = tiny_model(model_type, **changes)
    return model, find_moe_layers(model)


def random_keep(layers, kept, seed=0):
    """A mask of `kept` experts in each layer, as many in each group."""
    generator = np.random.default_rng(seed)
    keep = np.zeros((len(layers), layers[0].num_experts), dtype=bool)
    for row in keep:
        for group in np.split(row, layers[0].groups):
            group[generator.permutation(len(group))[: kept // layers[0].groups]] = True
    return keep


def logits_of(model):
    return model(input_ids=IDS, use_cache=False).logits
