"""Generation requests of a task, answered by lm-eval's own code for one mask after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from mbench.core.errors import TaskError
from mbench.evaluate.lm_eval import reference
from mbench.evaluate.lm_eval.items import Item
from mbench.evaluate.lm_eval.quiet import quiet
from mbench.evaluate.lm_head import output_layer
from mbench.evaluate.meter import Meter

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GENERATED = 256
"""Tokens that lm-eval generates where a task sets no limit."""


class GenerationRequests:
    """The requests of items of type `generate_until`."""

    rolling = False

    def __init__(
        self,
        name: str,
        items: Sequence[Item],
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
    ) -> None:
        """Count their tokens; raises `TaskError` if the answers leave no room for a prompt."""
        self.scoring = ""
        self._name = name
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._instances = [instance for item in items for instance in item.instances]
        arguments = [instance.args for instance in self._instances]
        prompts = [len(tokenizer.encode(prompt)) for prompt, _ in arguments]
        answers = [int(options.get("max_gen_toks", GENERATED)) for _, options in arguments]
        if max(answers) >= max_length:
            raise TaskError(
                f"task {name!r} generates up to {max(answers)} tokens, which leaves no room "
                f"for a prompt: the limit is {max_length} in all (lower max_gen_toks)"
            )
        lengths = [
            min(prompt + answer, max_length)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        self.tokens = sum(lengths)
        """Forward tokens of one mask, at most."""
        self.longest = max(lengths)
        """Tokens of the longest prompt with its answer, at most."""

    def answer(self, model: PreTrainedModel, batch_tokens: int, meter: Meter) -> list[Any]:
        """One text per instance.

        Raises:
            TaskError: logits that are not finite; greedy decoding would not notice.
        """
        with quiet():
            texts = self._generate(model, max(1, batch_tokens // self.longest), meter)
        self.scoring = "reference"
        return texts

    def _generate(self, model: PreTrainedModel, batch_size: int, meter: Meter) -> list[str]:
        head = output_layer(model)
        if head is None:
            raise TaskError(
                f"task {self._name!r}: the model has no output layer (get_output_embeddings), so "
                "its logits cannot be checked"
            )
        finite = torch.ones((), dtype=torch.bool, device=model.device)

        def watch(_module: Any, _inputs: Any, logits: torch.Tensor) -> None:
            finite.logical_and_(logits.isfinite().all())

        instances = self._instances
        generator = reference.wrap(model, self._tokenizer, self._max_length, batch_size)
        lengths = [len(generator.tok_encode(instance.args[0])) for instance in instances]
        order = sorted(range(len(instances)), key=lambda at: (-lengths[at], instances[at].args[0]))
        texts: dict[int, str] = {}
        handle = head.register_forward_hook(watch)
        try:
            for start in range(0, len(order), batch_size):
                part = order[start : start + batch_size]
                answers = generator.generate_until(
                    [instances[at] for at in part], disable_tqdm=True
                )
                if not finite:
                    raise TaskError(
                        f"task {self._name!r}: the model's logits are not finite in the batch "
                        f"that starts with item {instances[part[0]].doc_id}"
                    )
                texts.update(zip(part, answers, strict=True))
                meter.add_share(len(part) / len(order))
        finally:
            handle.remove()
        return [texts[at] for at in range(len(instances))]

    def columns(self, responses: Sequence[Any]) -> dict[str, list[Any]]:
        """None: the per-item table has the metrics of a text, not the text."""
        return {}
