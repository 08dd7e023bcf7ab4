"""Answers generated side by side, against transformers generating them one at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.family_models import FAMILIES, tiny_model
from helpers.tiny_models import VOCABULARY
from mbench.evaluate.decoding import Answer, decodes_in_rows, generate

NOT_IN_ROWS = {
    *("axk2", "bailing_hybrid", "deepseek_v32", "dots3_note_text", "glm_moe_dsa"),
    *("granitemoehybrid", "hy_v4", "inkling2_text", "jamba", "kimi_linear", "lfm2_moe", "minimax"),
    *("nemotron_h", "qwen3_5_moe_text", "qwen3_next", "qwen4_exp_text"),
}
"""Families whose caches hold something else than the keys and values of all tokens."""


def prompts_of(count, longest=24, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCABULARY, rng.integers(1, longest)).tolist() for _ in range(count)]


def likeliest(logits, rows):
    return logits.argmax(-1)


def one_by_one(model, prompt, limit, ends):
    ids = torch.tensor([prompt], device=model.device)
    made = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=sorted(ends) or None,
        pad_token_id=0,
    )
    return made[0, len(prompt) :].tolist()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_gets_side_by_side_what_it_gets_alone(name):
    model = tiny_model(name).eval()
    prompts = prompts_of(9)
    usable = decodes_in_rows(model, prompts)
    assert usable == (name not in NOT_IN_ROWS)
    if not usable:
        return
    ends = set(range(3, 3 + VOCABULARY // 8))
    limits = [4 + at for at in range(len(prompts))]
    answers = [
        Answer(prompt, limit, lambda tokens: tokens[-1] in ends)
        for prompt, limit in zip(prompts, limits, strict=True)
    ]
    with torch.no_grad():
        alone = [
            one_by_one(model, prompt, limit, ends)
            for prompt, limit in zip(prompts, limits, strict=True)
        ]
    work = generate(model, answers, 40, likeliest)
    assert [answer.tokens for answer in answers] == alone
    assert work.prompt_tokens == sum(map(len, prompts))
    assert work.answer_tokens == sum(map(len, alone)) - len(alone)
