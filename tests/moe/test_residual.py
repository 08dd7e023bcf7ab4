"""The residual stream that statistics are given, against what decoder layers return."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import cpu_offload

from helpers.family_cases import CASES, SEQUENCES, model_and_layers
from helpers.tiny_models import FAMILIES
from mbench.core.basics import RoutingSums
from mbench.core.errors import UnsupportedModel
from mbench.core.interfaces import ExpertMask, Statistic
from mbench.moe.adapter import find_moe_layers
from mbench.moe.mask import masked
from mbench.moe.offload import settle
from mbench.moe.profile import profile_model

NO_NORM = "no residual stream goes through a norm to its block"
NOT_ADDED = "the block's output is not simply added to the residual stream"
SCALED_OR_SHARED = "afmoe beam cohere2_moe granitemoe_swa granitemoehybrid granitemoeshared"
SCALED_OR_SHARED += " hy_v4 inkling2_text kolibri1 minimax"
WITHOUT_NORM = "flex_olmo gemma4 gemma4_text qwen4_exp qwen4_exp_text"
REFUSED = dict.fromkeys(WITHOUT_NORM.split(), NO_NORM) | dict.fromkeys(
    SCALED_OR_SHARED.split(), NOT_ADDED
)
"""Families that scale or normalise what they add, or add more; and those of other structure."""


class Stream(Statistic):
    name = "stream"
    combine = "concatenate"

    def measure(self, batch):
        return {"stream": batch.residual()}


class Meddler(Stream):
    def measure(self, batch):
        return {"stream": batch.residual().mul_(2)}


def streams_by_hand(model, layers):
    """What decoder layers return minus what their blocks do, [T, H] each; sequences run alone."""
    paths = [layer.path.rpartition(".")[0] for layer in layers]
    modules = {
        path: model.get_submodule(path)
        for block in paths
        for path in (block, block.rpartition(".")[0])
    }
    seen = {path: [] for path in modules}

    def keeping(path):
        def hook(module, args, output):
            first = output[0] if isinstance(output, tuple) else output
            seen[path].append(first.reshape(-1, first.shape[-1]).double())

        return hook

    handles = [module.register_forward_hook(keeping(path)) for path, module in modules.items()]
    for ids, length in zip(SEQUENCES.ids, SEQUENCES.lengths, strict=True):
        model.base_model(input_ids=torch.from_numpy(ids[None, :length]), use_cache=False)
    for handle in handles:
        handle.remove()
    return [
        (torch.cat(seen[path.rpartition(".")[0]]) - torch.cat(seen[path])).numpy() for path in paths
    ]


@pytest.mark.parametrize("case", CASES)
def test_the_stream_is_what_the_block_s_output_is_added_to_or_refused(case):
    model, layers = model_and_layers(case)
    collected = profile_model(
        model, layers, SEQUENCES, [Stream(), RoutingSums()], batch_size=2, shards=1
    )
    assert list(collected.sums) == [RoutingSums().identity]
    if case.split()[0] in REFUSED:
        with pytest.raises(UnsupportedModel, match=REFUSED[case.split()[0]]):
            raise collected.failures[Stream().identity]
        assert not collected.samples
        return
    assert not collected.failures
    found = collected.samples[Stream().identity]["stream"]
    for stream, expected in zip(found, streams_by_hand(model, layers), strict=True):
        np.testing.assert_allclose(stream, expected, rtol=1e-3, atol=1e-4)


def test_offloaded_and_masked_models_have_streams_too():
    model = FAMILIES["qwen2_moe"]()
    layers = find_moe_layers(model)

    def streams(**options):
        found = profile_model(
            model, layers, SEQUENCES, [Stream()], batch_size=2, shards=1, **options
        )
        return found.samples[Stream().identity]["stream"]

    plain = streams()
    keep = np.tile(np.arange(8) < 4, (len(layers), 1))
    under_mask = streams(mask=ExpertMask(keep))
    np.testing.assert_array_equal(under_mask[0], plain[0])
    with masked(layers, keep):
        for stream, expected in zip(under_mask, streams_by_hand(model, layers), strict=True):
            np.testing.assert_allclose(stream, expected, rtol=1e-3, atol=1e-4)
    cpu_offload(model)
    settle(model, layers)
    np.testing.assert_array_equal(streams(), plain)


def test_a_stream_that_a_statistic_changes_is_a_copy():
    model = FAMILIES["qwen2_moe"]()
    layers = find_moe_layers(model)
    found = profile_model(model, layers, SEQUENCES, [Meddler(), Stream()], batch_size=2, shards=1)
    alone = profile_model(model, layers, SEQUENCES, [Stream()], batch_size=2, shards=1)
    for each, expected in zip(
        found.samples[Meddler().identity]["stream"],
        alone.samples[Stream().identity]["stream"],
        strict=True,
    ):
        np.testing.assert_array_equal(each, 2 * expected)
