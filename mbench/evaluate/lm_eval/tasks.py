"""lm-eval tasks on a model in memory: prepared once, then run on one mask after another.

Documents, prompts, filters and per-item metrics are lm-eval's own. What differs: prompts are made
and tokenised once, and log-likelihoods are computed packed where the model allows it (see
`packing`).
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mbench.core.errors import TaskError, one_line
from mbench.core.evaluation import PERPLEXITY_METRICS, Evaluation, evaluation
from mbench.core.suite import LmEvalTask
from mbench.evaluate import packing
from mbench.evaluate.lm_eval.items import Item, columns_of, read_items, remember_templates
from mbench.evaluate.lm_eval.loading import load, quiet
from mbench.evaluate.lm_eval.requests import (
    encode,
    generate,
    length_limit,
    not_finite,
    score_reference,
)
from mbench.evaluate.meter import Meter
from mbench.evaluate.packing import Batch, Request, Row
from mbench.evaluate.scoring import Halves, positions_of

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GENERATED = 256
"""Tokens that lm-eval generates where a task sets no limit."""


def prepare(
    name: str,
    spec: LmEvalTask,
    directories: Sequence[Path],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None = None,
) -> PreparedTask:
    """Load a task, make its prompts and tokenise them.

    Args:
        name: what results call it; lm-eval's name too where `spec` gives none.
        spec: which task, and what of it.
        directories: folders of local task files; their tasks go before lm-eval's own of the same
            name. What `spec` says of a directory is not looked at.
        tokenizer: of the model.
        max_length: most tokens of a request, e.g. the model's positions; longer ones are
            truncated on the left. None: the tokenizer's own limit.

    Raises:
        TaskError: the name, the task file, its data, a metric or the lengths are not usable.
    """
    tasks = load(name, spec, directories)
    items: list[Item] = []
    with quiet():
        for subtask, task in tasks.items():
            remember_templates(task)
            try:
                task.build_all_requests(limit=spec.limit, rank=0, world_size=1)
                items += read_items(subtask, task, prefixed=len(tasks) > 1)
            except Exception as error:
                raise TaskError(
                    f"task {subtask!r}: its prompts cannot be made: {one_line(error)}"
                ) from error
    kinds = {instance.request_type for item in items for instance in item.instances}
    if len(kinds) > 1:
        raise TaskError(
            f"task {name!r} mixes tasks of output types {', '.join(sorted(kinds))}: list its "
            "members one by one in the suite"
        )
    limit = length_limit(tokenizer, max_length)
    with quiet():
        prepared = PreparedTask(name, tasks, items, tokenizer, limit, kinds.pop())
    prepared.columns = columns_of(name, tasks)
    return prepared


class PreparedTask:
    """A task with its prompts tokenised; an `Evaluator`."""

    def __init__(
        self,
        name: str,
        tasks: Mapping[str, Task],
        table: Sequence[Item],
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        kind: str,
    ) -> None:
        self.name = name
        self.scoring = ""
        self.columns: Mapping[str, Mapping[tuple[str, str], str]] = {}
        self._tasks = tasks
        self._table = table
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._kind = kind
        self._instances = [instance for item in table for instance in item.instances]
        self._item_of = [at for at, item in enumerate(table) for _ in item.instances]
        self._requests: list[Request] = []
        self._owners: list[int] = []
        self._rows: list[Row] = []
        self._longest = 0
        if kind == "generate_until":
            self._plan_generation()
        else:
            self._requests, self._owners = encode(
                self._instances, self._item_of, tokenizer, max_length
            )
            self._rows = packing.arrange(self._requests)
            self.tokens = sum(row.tokens for row in self._rows)
            self._longest = max(len(request.tokens) for request in self._requests)
        self._batches: tuple[int, list[Batch]] = (0, [])
        self._checked: tuple[weakref.ref[Any], Halves | None] | None = None

    @property
    def item_names(self) -> list[str]:
        """The column `item` of its per-item tables."""
        return [item.identity for item in self._table]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that an evaluation will have."""
        if self._kind == "loglikelihood_rolling":
            return PERPLEXITY_METRICS
        return tuple(dict.fromkeys(name for of in self.columns.values() for name in of.values()))

    @property
    def items(self) -> int:
        """Rows of the per-item table."""
        return len(self._table)

    def evaluate(
        self,
        model: PreTrainedModel,
        *,
        batch_tokens: int = 8192,
        advance: Callable[[int], None] | None = None,
    ) -> Evaluation:
        """Score all items with the model as it is now; see `Evaluator.evaluate`."""
        if self._longest > positions_of(model):
            raise TaskError(
                f"task {self.name!r} has requests of {self._longest} tokens, but the model has "
                f"{positions_of(model)} positions: it must be prepared with that max_length"
            )
        report = Meter(self.tokens, advance)
        if self._kind == "generate_until":
            responses: list[Any] = self._generate(model, batch_tokens, report)
        else:
            responses = self._loglikelihoods(model, batch_tokens, report)
        report.finish()
        try:
            for instance, response in zip(self._instances, responses, strict=True):
                # Filters take the first response, which would be an earlier mask's.
                instance.filtered_resps.clear()
                instance.resps[:] = [response] * instance.repeats
            return evaluation(self.name, self._frame(responses))
        finally:
            for instance in self._instances:
                instance.resps.clear()
                instance.filtered_resps.clear()

    def _loglikelihoods(
        self, model: PreTrainedModel, batch_tokens: int, report: Meter
    ) -> list[Any]:
        """One response per instance: (log-likelihood, is greedy), or the sum of rolling windows."""
        parts = self._halves(model)
        if parts is not None:
            if self._batches[0] != batch_tokens:
                made = packing.batches(self._requests, self._rows, batch_tokens)
                self._batches = (batch_tokens, made)
            by_request = packing.score_all(parts, self._batches[1], model.device, report.add)
        else:
            with quiet():
                by_request = score_reference(
                    model, self._tokenizer, self._requests, batch_tokens, report.add_share
                )
        scored = [by_request[number] for number in range(len(self._requests))]
        bad = not_finite([value for value, _ in scored])
        if bad is not None:
            item = self._table[self._item_of[self._owners[bad]]]
            raise TaskError(
                f"task {self.name!r}: the log-likelihood of item {item.identity} is "
                f"{scored[bad][0]}: the model's output is not finite"
            )
        self._checked = (weakref.ref(model), parts)
        self.scoring = "reference" if parts is None else "packed"
        if self._kind == "loglikelihood":
            return scored
        sums: list[Any] = np.bincount(self._owners, weights=[value for value, _ in scored]).tolist()
        return sums

    def _halves(self, model: PreTrainedModel) -> Halves | None:
        """The model's halves if it allows packing; checked once per model."""
        if self._checked is not None and self._checked[0]() is model:
            return self._checked[1]
        return packing.usable(model, self._requests, self._rows)

    def _plan_generation(self) -> None:
        arguments = [instance.args for instance in self._instances]
        prompts = [len(self._tokenizer.encode(prompt)) for prompt, _ in arguments]
        answers = [int(options.get("max_gen_toks", GENERATED)) for _, options in arguments]
        if max(answers) >= self._max_length:
            raise TaskError(
                f"task {self.name!r} generates up to {max(answers)} tokens, which leaves no room "
                f"for a prompt: the limit is {self._max_length} in all (lower max_gen_toks)"
            )
        whole = [
            min(prompt + answer, self._max_length)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        self.tokens = sum(whole)
        self._longest = max(whole)

    def _generate(self, model: PreTrainedModel, batch_tokens: int, report: Meter) -> list[str]:
        rows = max(1, batch_tokens // self._longest)
        with quiet():
            texts = generate(
                model,
                self._tokenizer,
                self._instances,
                self.name,
                self._max_length,
                rows,
                report.add_share,
            )
        self.scoring = "reference"
        return texts

    def _frame(self, responses: Sequence[Any]) -> pd.DataFrame:
        """The per-item table; see `mbench.core.evaluation`."""
        for task in self._tasks.values():
            task.apply_filters()
        rows = []
        at = 0
        for item in self._table:
            row: dict[str, Any] = {"item": item.identity}
            if len(self._tasks) > 1:
                row["subtask"] = item.subtask
            of_item = responses[at : at + len(item.instances)]
            at += len(item.instances)
            row |= self._metrics(item)
            if self._kind == "loglikelihood":
                row["loglikelihoods"] = [float(value) for value, _ in of_item]
            rows.append(row)
        table = pd.DataFrame(rows)
        if self._kind == "loglikelihood_rolling":
            table["nll"] = [-float(value) for value in responses]
            sizes = np.zeros(len(responses), dtype=np.int64)
            np.add.at(sizes, self._owners, [len(request.targets) for request in self._requests])
            table["tokens"] = sizes
        return table

    def _metrics(self, item: Item) -> dict[str, float]:
        task = self._tasks[item.subtask]
        row: dict[str, float] = {}
        for filtered in item.instances[0].filtered_resps:
            results = task.process_results(
                item.doc, [instance.filtered_resps[filtered] for instance in item.instances]
            )
            if self._kind == "loglikelihood_rolling":
                # (log-likelihood, bytes), the text's before any detokenisation.
                row["bytes"] = results["bits_per_byte"][1]
                continue
            for (metric, kept), column in self.columns[item.subtask].items():
                if kept == filtered:
                    row[column] = float(results.get(metric, math.nan))
        return row
