"""Answers of the likeliest tokens, as transformers generates them for one prompt at a time."""

from __future__ import annotations

import torch


def likeliest(logits, rows):
    return logits.argmax(-1)


def never(tokens):
    return False


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
