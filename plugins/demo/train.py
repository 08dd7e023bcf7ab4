"""The recipe of the demo model: `python -m mbench_plugins.demo.train --out DIR`.

Trains a tokenizer and a small Qwen2-MoE from scratch on the demo's text. The budget is a number of
tokens and everything random is seeded, so the recipe gives the same model on the same machine and
number of threads, and a similar model elsewhere (floating-point sums differ).
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, Qwen2MoeConfig, Qwen2MoeForCausalLM
from transformers.utils import logging

from .muon import Muon
from .text import CORPORA, documents
from .tokens import token_stream, train_tokenizer, windows


@dataclass(frozen=True)
class Recipe:
    """Sizes and schedule. Defaults are those of the model that the package contains."""

    tokens: int = 5_000_000
    seed: int = 0
    vocabulary: int = 2048
    hidden: int = 96
    layers: int = 4
    heads: int = 3
    experts: int = 24
    chosen: int = 2
    expert_width: int = 64
    shared_width: int = 64
    length: int = 256
    rows: int = 12
    micro_batches: int = 2
    matrix_rate: float = 0.02
    other_rate: float = 0.003
    balance: float = 0.01
    normalise_gates: bool = False

    @property
    def steps(self) -> int:
        """Optimiser steps in the budget, at least one."""
        return max(1, self.tokens // (self.rows * self.length))


def build(recipe: Recipe, end_of_text: int) -> Qwen2MoeForCausalLM:
    """An untrained model of the recipe's size; the caller sets the seed."""
    model = Qwen2MoeForCausalLM(
        Qwen2MoeConfig(
            vocab_size=recipe.vocabulary,
            hidden_size=recipe.hidden,
            intermediate_size=recipe.chosen * recipe.expert_width,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            num_experts=recipe.experts,
            num_experts_per_tok=recipe.chosen,
            moe_intermediate_size=recipe.expert_width,
            shared_expert_intermediate_size=recipe.shared_width,
            norm_topk_prob=recipe.normalise_gates,
            router_aux_loss_coef=0.0,
            max_position_embeddings=recipe.length,
            tie_word_embeddings=True,
            bos_token_id=end_of_text,
            eos_token_id=end_of_text,
            pad_token_id=end_of_text,
        )
    )
    model.set_experts_implementation("grouped_mm")
    if not recipe.normalise_gates:
        with torch.no_grad():
            # Gates start near 1 / experts each; experts start larger so that their sum counts.
            for layer in model.model.layers:
                layer.mlp.experts.down_proj.mul_(recipe.experts / recipe.chosen)
    return model


class Rows:
    """Training rows of one corpus: windows in random order, from a new offset every epoch."""

    def __init__(self, stream: torch.Tensor, length: int, generator: torch.Generator) -> None:
        if len(stream) < 2 * length:
            raise ValueError(f"{len(stream)} tokens are too few for rows of {length}")
        self.stream, self.length, self.generator = stream, length, generator
        self.queue: list[torch.Tensor] = []

    def next(self, count: int, end_of_text: int) -> torch.Tensor:
        """(count, length) token ids; about half of the rows start with the end-of-text token.

        The model thus knows both kinds of beginning that evaluations use.
        """
        while len(self.queue) < count:
            offset = int(torch.randint(self.length, (1,), generator=self.generator))
            rows = windows(self.stream[offset:], self.length)
            order = torch.randperm(len(rows), generator=self.generator)
            self.queue.extend(rows[order].unbind())
        taken, self.queue = self.queue[:count], self.queue[count:]
        batch = torch.stack(taken)
        begins = torch.rand(count, generator=self.generator) < 0.5
        shifted = torch.cat((torch.full((count, 1), end_of_text), batch[:, :-1]), dim=1)
        return torch.where(begins.unsqueeze(1), shifted, batch)


def optimisers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices between embeddings, AdamW for everything else."""
    matrices, pairs, others = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or "embed" in name or "gate.weight" in name:
            others.append(parameter)
        elif name.endswith("gate_up_proj"):
            pairs.append(parameter)
        else:
            matrices.append(parameter)
    groups = [{"params": matrices}, {"params": pairs, "parts": 2}]
    return [
        Muon(groups, lr=recipe.matrix_rate),
        torch.optim.AdamW(others, lr=recipe.other_rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def imbalance(router_logits: tuple[torch.Tensor, ...], chosen: int) -> torch.Tensor:
    """How unevenly experts are used, averaged over layers: 1 where all are used equally.

    The load-balancing loss of Switch Transformer, computed per layer. (The loss in transformers
    pools the layers first, so that one layer may neglect an expert that another one uses.)

    Args:
        router_logits: one (tokens, experts) tensor per layer.
        chosen: experts that each token is routed to.
    """
    total = router_logits[0].new_zeros(())
    for logits in router_logits:
        probabilities = logits.softmax(dim=-1)
        experts = logits.shape[1]
        index = probabilities.topk(chosen, dim=-1).indices.flatten()
        load = torch.bincount(index, minlength=experts) / index.numel()
        total = total + experts * (load * probabilities.mean(dim=0)).sum()
    return total / len(router_logits)


def rate_factor(step: int, steps: int) -> float:
    """Learning rate relative to its peak: short warm-up, a plateau, then linearly to zero."""
    warm = min(1.0, (step + 1) / max(1, steps // 50))
    return warm * min(1.0, (steps - step) / (0.6 * steps))


def train(
    recipe: Recipe,
    out: Path,
    texts: dict[str, list[str]] | None = None,
    minutes: float = math.inf,
    save_every: int = 0,
) -> Qwen2MoeForCausalLM:
    """Train and save into `out`; returns the model in float32.

    Args:
        recipe: sizes, budget and seed.
        out: directory for the checkpoint and `training.json`.
        texts: documents by corpus; the train split of every corpus if left out.
        minutes: stop after this wall time although tokens are left (then not reproducible).
        save_every: also save after every so many steps; 0 saves at the end only.
    """
    texts = texts or {corpus: documents(corpus, "train") for corpus in CORPORA}
    tokenizer = train_tokenizer(texts, recipe.vocabulary)
    end_of_text = tokenizer.eos_token_id
    torch.manual_seed(recipe.seed)
    model = build(recipe, end_of_text)
    model.train()
    corpora = [
        Rows(
            token_stream(tokenizer, corpus),
            recipe.length,
            torch.Generator().manual_seed(recipe.seed * len(texts) + position),
        )
        for position, corpus in enumerate(texts.values())
    ]
    optimisers_ = optimisers(model, recipe)
    peaks = [[group["lr"] for group in optimiser.param_groups] for optimiser in optimisers_]
    started, tokens, losses = time.monotonic(), 0, []
    for step in range(recipe.steps):
        _set_rates(optimisers_, peaks, rate_factor(step, recipe.steps))
        loss, step_tokens = _backward(model, recipe, corpora, end_of_text)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers_:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        losses.append(loss)
        tokens += step_tokens
        seconds = time.monotonic() - started
        if step % 20 == 0:
            speed = f"{tokens / seconds:.0f} tokens/s"
            print(f"step {step:5d}/{recipe.steps}  loss {loss:.3f}  {speed}", flush=True)
        if save_every and step and step % save_every == 0:
            save(model, tokenizer, out)
        if seconds > 60 * minutes:
            break
    save(model, tokenizer, out)
    report = {
        "recipe": asdict(recipe),
        "tokens_seen": tokens,
        "steps": len(losses),
        "final_loss": sum(losses[-20:]) / len(losses[-20:]),
    }
    (out / "training.json").write_text(json.dumps(report, indent=2) + "\n")
    return model


def _set_rates(
    optimisers_: list[torch.optim.Optimizer], peaks: list[list[float]], factor: float
) -> None:
    for optimiser, rates in zip(optimisers_, peaks, strict=True):
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * factor


def _backward(
    model: Qwen2MoeForCausalLM, recipe: Recipe, corpora: list[Rows], end_of_text: int
) -> tuple[float, int]:
    """Add up the gradients of one step; returns its loss without balancing, and its tokens."""
    per_corpus = recipe.rows // recipe.micro_batches // len(corpora)
    total, tokens = 0.0, 0
    for _ in range(recipe.micro_batches):
        # A row is of one corpus; every micro-batch has equally many rows of all corpora.
        batch = torch.cat([rows.next(per_corpus, end_of_text) for rows in corpora])
        result = model(input_ids=batch, labels=batch, output_router_logits=True)
        loss = result.loss + recipe.balance * imbalance(result.router_logits, recipe.chosen)
        (loss / recipe.micro_batches).backward()
        total += result.loss.item() / recipe.micro_batches
        tokens += batch.numel()
    return total, tokens


def save(model: Qwen2MoeForCausalLM, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write a checkpoint for AutoModelForCausalLM and AutoTokenizer, weights in bfloat16."""
    out.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).bfloat16().save_pretrained(out)
    tokenizer.save_pretrained(out)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m mbench_plugins.demo.train", description=__doc__
    )
    parser.add_argument("--out", type=Path, required=True, help="directory for the checkpoint")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop early")
    parser.add_argument("--save-every", type=int, default=200, help="steps between checkpoints")
    for name, default in asdict(Recipe()).items():
        kind = (lambda word: word == "true") if isinstance(default, bool) else type(default)
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default)
    chosen = vars(parser.parse_args(arguments))
    out, minutes, save_every = (chosen.pop(key) for key in ("out", "minutes", "save_every"))
    logging.disable_progress_bar()
    train(Recipe(**chosen), out, minutes=minutes, save_every=save_every)


if __name__ == "__main__":
    main()
