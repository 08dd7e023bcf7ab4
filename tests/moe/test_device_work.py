"""What a profiling pass asks of an accelerator: how often it waits, how many operations it starts.

No accelerator is needed: the CPU computes as one would, with grouped products of experts.
"""

from __future__ import annotations

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.tiny_models import qwen2_moe, random_sequences
from mbench.core.basics import RoutingSums
from mbench.moe.adapter import find_moe_layers
from mbench.moe.every_expert import joint_outputs
from mbench.moe.experts import sorted_groups
from mbench.moe.profile import profile_model
from mbench_plugins.expert_sparsity import ReconstructionSample
from mbench_plugins.merging import MeanOutputs
from mbench_plugins.shape import RoutedSets


@pytest.fixture
def as_on_an_accelerator(monkeypatch):
    """The CPU's loop would read counts."""

    def grouped(experts, hidden, index, weights, samples=()):
        norms = torch.empty(index.shape)
        output = sorted_groups(experts, hidden, index, weights, norms)
        return output, norms, [None] * len(samples)

    monkeypatch.setattr("mbench.moe.record.apply_with_norms", grouped)
    monkeypatch.setattr("mbench.moe.record.all_outputs", joint_outputs)


class Waits(TorchFunctionMode):
    """Counts what makes the host wait for a device."""

    WAITING = ("item", "cpu", "__bool__", "__int__", "__float__", "nonzero", "unique", "tolist")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += getattr(func, "__name__", "") in self.WAITING
        masks = args[1] if func is torch.Tensor.__getitem__ else ()
        for index in masks if isinstance(masks, tuple) else (masks,):
            self.count += isinstance(index, torch.Tensor) and index.dtype == torch.bool
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", ["routing", "expert-sparsity", "mean-outputs", "shape"])
def test_waits_for_the_device_grow_neither_with_batches_nor_with_layers(
    method, as_on_an_accelerator
):
    statistic = {
        "routing": RoutingSums(),
        "expert-sparsity": ReconstructionSample(tokens=40, held_out=20),
        "mean-outputs": MeanOutputs(tokens=40),
        "shape": RoutedSets(tokens=40),
    }[method]
    counts = set()
    for layers, batch_size in ((1, 12), (1, 2), (3, 12), (3, 2)):
        model = qwen2_moe(num_hidden_layers=layers)
        sequences = random_sequences([10] * 12)

        def run(statistics, model=model, sequences=sequences, batch_size=batch_size):
            with Waits() as waits:
                found = find_moe_layers(model)
                collected = profile_model(
                    model, found, sequences, statistics, batch_size=batch_size, shards=2
                )
            assert not collected.failures
            return waits.count

        with Waits() as plain:
            for start in range(0, 12, batch_size):
                ids = torch.from_numpy(sequences.ids[start : start + batch_size])
                model.base_model(input_ids=ids, use_cache=False)
        counts.add(run([statistic]) - plain.count)
    assert max(counts) <= 4, counts


class Operations(TorchDispatchMode):
    """Counts what would start a kernel: all but views and memory that is left as it is."""

    NONE = (
        *("view", "_unsafe_view", "t", "transpose", "expand", "slice", "select", "split"),
        *("split_with_sizes", "unsqueeze", "squeeze", "as_strided", "detach", "alias", "permute"),
        *("empty", "empty_strided", "new_empty", "empty_like", "unbind", "diagonal"),
    )

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.name().split("::")[1].split(".")[0] not in self.NONE
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("shards", "sums", "sample"), [(1, 24, 34), (4, 93, 138)])
def test_a_layer_starts_few_operations_beside_those_of_the_model(
    shards, sums, sample, as_on_an_accelerator
):
    """At most so many for routing sums, and so many more with ExpertSparsity's sample."""
    statistics = {
        "sums": [RoutingSums()],
        "sample": [RoutingSums(), ReconstructionSample(tokens=40, held_out=20)],
    }
    counts = {"plain": [], **{name: [] for name in statistics}}
    for number in (1, 3):
        model = qwen2_moe(num_hidden_layers=number)
        model.set_experts_implementation("grouped_mm")
        layers, sequences = find_moe_layers(model), random_sequences([30] * 4)
        with Operations() as plain, torch.no_grad():
            model.base_model(input_ids=torch.from_numpy(sequences.ids), use_cache=False)
        counts["plain"].append(plain.count)
        for name, asked in statistics.items():
            with Operations() as operations:
                profile_model(model, layers, sequences, asked, batch_size=4, shards=shards)
            counts[name].append(operations.count)
    a_layer = {name: (three - one) / 2 for name, (one, three) in counts.items()}
    assert a_layer["sums"] - a_layer["plain"] <= sums, a_layer
    assert a_layer["sample"] - a_layer["sums"] <= sample, a_layer
