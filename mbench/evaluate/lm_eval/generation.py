"""Generation requests of a task, answered for one mask after another.

Answers of the likeliest tokens are generated side by side by our own loop, all others by lm-eval's
code; what lm-eval makes of an answer it makes of both.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mbench.core.batch_limit import BatchLimit
from mbench.core.errors import TaskError
from mbench.core.evaluation import GENERATED_METRICS, GenerationWork
from mbench.core.replaced import replaced
from mbench.evaluate.answers import Answer
from mbench.evaluate.decoding import NotFinite, generate
from mbench.evaluate.lm_eval import reference
from mbench.evaluate.lm_eval.answer_shape import Shape, mean_shape
from mbench.evaluate.lm_eval.encoding import prompt_tokens
from mbench.evaluate.lm_eval.generation_options import decides_alone, options_of
from mbench.evaluate.lm_eval.generator import Generator
from mbench.evaluate.lm_eval.items import Item, Prompt
from mbench.evaluate.lm_eval.quiet import quiet
from mbench.evaluate.lm_eval.sampling import Draws, stream
from mbench.evaluate.lm_head import output_layer
from mbench.evaluate.meter import Meter
from mbench.evaluate.row_passes import decodes_in_rows
from mbench.evaluate.shared_prompts import beginnings
from mbench.moe.config import turned_by_longest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class _Draw:
    """One answer that is to be generated."""

    instance: int
    stream: int


class GenerationRequests:
    """The requests of items of type `generate_until`."""

    rolling = False

    def __init__(
        self,
        name: str,
        items: Sequence[Item],
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        seed: int,
    ) -> None:
        """Count their tokens; raises `TaskError` if the answers leave no room for a prompt."""
        special = (tokenizer.pad_token, tokenizer.unk_token, tokenizer.eos_token)
        if all(token is None for token in special):
            # lm-eval would add one that the embedding has no row for.
            raise TaskError(
                f"task {name!r}: the tokenizer has no special token that prompts could be padded"
                " with"
            )
        self.scoring = ""
        self._name = name
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._items = items
        self._seed = seed
        self._instances = [instance for item in items for instance in item.instances]
        self._options = [options_of(name, instance) for instance in self._instances]
        self.sampled = any(options.sampled for options in self._options)
        """Whether answers are drawn."""
        most = max(options.limit for options in self._options)
        if most >= max_length:
            raise TaskError(
                f"task {name!r} generates up to {most} tokens, which leaves no room "
                f"for a prompt: the limit is {max_length} in all (lower max_gen_toks)"
            )
        prompts = self._prompt_tokens()
        self.prompts = [
            Prompt(len(prompt), max(0, len(prompt) + options.limit - max_length))
            for prompt, options in zip(prompts, self._options, strict=True)
        ]
        """One for each instance."""
        self._draws = list(self._draws_of(items, seed))
        self._shapes: Sequence[Sequence[Shape]] = ()
        lengths = [
            self.prompts[draw.instance].kept + self._options[draw.instance].limit
            for draw in self._draws
        ]
        self.tokens = sum(lengths) - self._read_once(prompts)
        """Forward tokens of one mask, at most."""
        self.generated = sum(self._options[draw.instance].limit for draw in self._draws)
        """Of these, those generated one after another, at most."""
        self.longest = max(lengths)
        """Tokens of the longest prompt with its answer, at most."""
        self.work: GenerationWork | None = None
        """What the last evaluation took, if answers were generated side by side."""
        self._contexts: list[list[int]] | None = None
        self._checked: tuple[weakref.ref[Any], bool] | None = None

    def _prompt_tokens(self) -> list[list[int]]:
        """One for each instance; raises `TaskError` for one that is empty."""
        texts = [instance.args[0] for instance in self._instances]
        prompts = prompt_tokens(self._tokenizer, texts)
        if not all(prompts):
            item = self._instances[prompts.index([])].doc_id
            raise TaskError(f"task {self._name!r}: item {item} has an empty prompt")
        return prompts

    def _read_once(self, prompts: Sequence[Sequence[int]]) -> int:
        """Tokens of prompts that are not read again, where answers are generated side by side."""
        if not all(options.plain for options in self._options):
            return 0
        pairs = zip(prompts, self.prompts, strict=True)
        kept = [prompt[each.cut :] for prompt, each in pairs]
        return sum(each.spared for each in beginnings(kept))

    def part(self, numbers: Sequence[int]) -> GenerationRequests:
        """Those of these items alone, in this order."""
        items = [self._items[number] for number in numbers]
        return GenerationRequests(self._name, items, self._tokenizer, self._max_length, self._seed)

    def _draws_of(self, items: Sequence[Item], seed: int) -> Iterator[_Draw]:
        """One for each repetition, but of the most likely tokens one for all."""
        owners = [(item, instance) for item in items for instance in item.instances]
        for at, (item, instance) in enumerate(owners):
            repeats = instance.repeats if self._options[at].sampled else 1
            for repeat in range(repeats or 1):
                yield _Draw(at, stream(seed, item.identity, instance.idx, repeat))

    def answer(
        self, model: PreTrainedModel, limit: BatchLimit, meter: Meter
    ) -> list[tuple[Any, ...]]:
        """For each instance, the text of each repetition.

        Raises:
            TaskError: logits that are not finite; greedy decoding would not notice.
        """
        with quiet():
            answers = self._generate(model, limit, meter)
        by_instance: list[list[str]] = [[] for _ in self._instances]
        shapes: list[list[Shape]] = [[] for _ in self._instances]
        for draw, (text, shape) in zip(self._draws, answers, strict=True):
            by_instance[draw.instance].append(text)
            shapes[draw.instance].append(shape)
        self._shapes = shapes
        return [
            tuple(found) if options.sampled else tuple(found) * (instance.repeats or 1)
            for found, options, instance in zip(
                by_instance, self._options, self._instances, strict=True
            )
        ]

    def _generate(
        self, model: PreTrainedModel, limit: BatchLimit, meter: Meter
    ) -> list[tuple[str, Shape]]:
        head = output_layer(model)
        if head is None:
            raise TaskError(
                f"task {self._name!r}: the model has no output layer (get_output_embeddings), so "
                "its logits cannot be checked"
            )
        generator = reference.wrap(model, self._tokenizer, self._max_length, 1, Generator)
        if self._usable(model, generator):
            self.scoring = "rows"
            return self._side_by_side(model, generator, limit, meter)
        self.scoring, self.work = "reference", None
        answers: list[tuple[str, Shape]] = []
        alone = turned_by_longest(model.config, self.longest)

        def by_lm_eval(rows: int) -> None:
            answers.extend(self._by_lm_eval(model, head, rows, meter))

        limit.run(
            lambda tokens: [] if answers else [1 if alone else max(1, tokens // self.longest)],
            lambda rows: rows * self.longest,
            by_lm_eval,
        )
        return answers

    def _usable(self, model: PreTrainedModel, generator: Generator) -> bool:
        """Whether answers may be generated by our own loop; checked once per model."""
        if not all(options.plain for options in self._options):
            return False
        if not decides_alone(model.generation_config):
            return False
        if self._checked is None or self._checked[0]() is not model:
            if self._contexts is None:
                self._contexts = [
                    generator.prompt(instance.args[0], options.limit)
                    for instance, options in zip(self._instances, self._options, strict=True)
                ]
            self._checked = (
                weakref.ref(model),
                decodes_in_rows(model, self._contexts, self.longest),
            )
        return self._checked[1]

    def _side_by_side(
        self, model: PreTrainedModel, generator: Generator, limit: BatchLimit, meter: Meter
    ) -> list[tuple[str, Shape]]:
        assert self._contexts is not None
        endings = {options.until: generator.ending(options.until) for options in self._options}
        answers = []
        for draw in self._draws:
            options = self._options[draw.instance]
            prompt = self._contexts[draw.instance]
            answers.append(Answer(prompt, options.limit, endings[options.until]))
        self.work = GenerationWork()
        try:
            generate(model, answers, limit, _likeliest, meter.add, self.work)
        except NotFinite as error:
            found = next(at for at, answer in enumerate(answers) if answer is error.answers[0])
            raise self._not_finite(self._draws[found], "for") from error
        instances = (self._instances[draw.instance] for draw in self._draws)
        pairs = zip(instances, answers, strict=True)
        return [generator.text_of(instance, answer) for instance, answer in pairs]

    def _not_finite(self, draw: _Draw, where: str) -> TaskError:
        item = self._instances[draw.instance].doc_id
        return TaskError(
            f"task {self._name!r}: the model's logits are not finite {where} item {item}"
        )

    def _by_lm_eval(
        self, model: PreTrainedModel, head: torch.nn.Module, size: int, meter: Meter
    ) -> list[tuple[str, Shape]]:
        """In lm-eval's own batches of so many, which wait for their longest answers."""
        generator = reference.wrap(model, self._tokenizer, self._max_length, size, Generator)
        finite = torch.ones((), dtype=torch.bool, device=model.device)

        def watch(_module: Any, _inputs: Any, logits: torch.Tensor) -> None:
            finite.logical_and_(logits.isfinite().all())

        lengths = [len(generator.tok_encode(instance.args[0])) for instance in self._instances]
        found: dict[int, tuple[str, Shape]] = {}
        handle = head.register_forward_hook(watch)
        try:
            for part in self._batches(lengths, size):
                draws = [self._draws[at] for at in part]
                instances = [self._instances[draw.instance] for draw in draws]
                sampled = self._options[draws[0].instance].sampled
                drawn = Draws([draw.stream for draw in draws])
                with replaced(torch, "multinomial", drawn) if sampled else nullcontext():
                    texts = generator.generate_until(instances, disable_tqdm=True)
                if not finite:
                    raise self._not_finite(draws[0], "in the batch that starts with")
                found.update(zip(part, zip(texts, generator.shapes, strict=True), strict=True))
                meter.add_share(len(part) / len(self._draws))
        finally:
            handle.remove()
        return [found[at] for at in range(len(self._draws))]

    def _batches(self, lengths: Sequence[int], size: int) -> Iterator[list[int]]:
        """Numbers of draws, in lm-eval's own order, so that it leaves a batch as it is."""

        def place(at: int) -> tuple[str, int, str]:
            number = self._draws[at].instance
            prompt = self._instances[number].args[0]
            return self._options[number].together, -lengths[number], prompt

        order = sorted(range(len(self._draws)), key=place)
        start = 0
        while start < len(order):
            first = place(order[start])[0]
            alone = self._options[self._draws[order[start]].instance].alone
            part = order[start : start + (1 if alone else size)]
            part = [at for at in part if place(at)[0] == first]
            yield part
            start += len(part)

    def columns(self, responses: Sequence[Any]) -> dict[str, list[Any]]:
        """The generated texts, of several for one item the first, and the means over all of what
        they look like; no `loops` where all answers are too short to have one."""
        found: dict[str, list[Any]] = {"answer": [str(each[0]) for each in responses]}
        means = [mean_shape(of_instance) for of_instance in self._shapes]
        for column in GENERATED_METRICS:
            values = [mean[column] for mean in means]
            if not all(map(math.isnan, values)):
                found[column] = values
        return found


def _likeliest(logits: torch.Tensor, rows: Sequence[Answer]) -> torch.Tensor:
    return logits.argmax(-1)
