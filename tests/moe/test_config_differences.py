"""What is taken for harmless in a configuration: no logit may depend on it, in any family."""

from __future__ import annotations

import copy

import pytest
import torch

from helpers.family_cases import CASES, logits_of, model_and_layers
from mbench.moe.config import ATTENTION, EXPERTS, NEEDED
from mbench.moe.recognition.config_differences import NO_MATTER

ELSEWHERE = {*NEEDED, *ATTENTION, *EXPERTS, "dtype"}
"""What mbench sets itself, or compares as what the weights are computed in."""


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_no_logit_depends_on_what_is_ignored(case):
    model, _ = model_and_layers(case)
    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    changed = []
    for name in sorted(NO_MATTER - ELSEWHERE):
        value = getattr(text, name, None)
        if isinstance(value, bool | int | float):
            # Fractions stay such, and other whole numbers whole.
            other = value / 2 + 0.25 if isinstance(value, float) else value + 1
            setattr(text, name, not value if isinstance(value, bool) else other)
            changed.append(name)
    assert {"initializer_range", "attention_dropout"} & {*changed}
    built = type(model)(config)
    built.load_state_dict(model.state_dict())
    assert torch.equal(logits_of(built.eval()), logits_of(model))
