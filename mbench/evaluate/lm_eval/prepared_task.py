"""lm-eval tasks on a model in memory: prepared once, then run on one mask after another.

Documents, prompts, filters and per-item metrics are lm-eval's own. What differs: prompts are made
and tokenised once, and log-likelihoods are computed packed where the model allows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mbench.core.errors import TaskError, one_line
from mbench.core.evaluation import PERPLEXITY_METRICS, Evaluation, evaluation
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval.encoding import length_limit
from mbench.evaluate.lm_eval.generation import GenerationRequests
from mbench.evaluate.lm_eval.items import Columns, Item, columns_of, read_items
from mbench.evaluate.lm_eval.loading import load
from mbench.evaluate.lm_eval.loglikelihood import LoglikelihoodRequests
from mbench.evaluate.lm_eval.quiet import quiet
from mbench.evaluate.lm_eval.task_data import LeafData
from mbench.evaluate.meter import Meter
from mbench.moe.config import positions_of

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Requests = LoglikelihoodRequests | GenerationRequests


def prepare(
    name: str,
    spec: LmEvalTask,
    directories: Sequence[Path],
    tokenizer: PreTrainedTokenizerBase,
    data: Sequence[LeafData] = (),
    *,
    max_length: int | None = None,
) -> PreparedTask:
    """Load a task, make its prompts and tokenise them.

    Args:
        name: what results call it; lm-eval's name too where `spec` gives none.
        spec: which task, and what of it.
        directories: folders of local task files; their tasks go before lm-eval's own of the same
            name. `spec.directory` is ignored.
        tokenizer: of the model.
        data: of its leaves.
        max_length: most tokens of a request, e.g. the model's positions; longer ones are
            truncated on the left. None: the tokenizer's own limit.

    Raises:
        TaskError: the name, the task file, its data, a metric or the lengths are not usable.
    """
    tasks = load(name, spec, directories, data)
    items: list[Item] = []
    with quiet():
        for subtask, task in tasks.items():
            try:
                task.build_all_requests(limit=spec.limit, rank=0, world_size=1)
                items += read_items(subtask, task, prefixed=len(tasks) > 1)
            except Exception as error:
                raise TaskError(
                    f"task {subtask!r}: its prompts cannot be made: {one_line(error)}"
                ) from error
    if not items:
        raise TaskError(f"task {name!r} has no items")
    columns = columns_of(name, tasks)
    kinds = {instance.request_type for item in items for instance in item.instances}
    if len(kinds) > 1:
        raise TaskError(
            f"task {name!r} mixes tasks of output types {', '.join(sorted(kinds))}: list its "
            "members one by one in the suite"
        )
    kind = kinds.pop()
    limit = length_limit(tokenizer, max_length)
    requests: Requests
    with quiet():
        if kind == "generate_until":
            requests = GenerationRequests(name, items, tokenizer, limit)
        else:
            rolling = kind == "loglikelihood_rolling"
            requests = LoglikelihoodRequests(name, items, tokenizer, limit, rolling=rolling)
    return PreparedTask(name, tasks, items, columns, requests)


class PreparedTask:
    """A task with its prompts tokenised; an `Evaluator`."""

    def __init__(
        self,
        name: str,
        tasks: Mapping[str, Task],
        items: Sequence[Item],
        columns: Mapping[str, Columns],
        requests: Requests,
    ) -> None:
        self.name = name
        self._tasks = tasks
        self._items = items
        self._columns = columns
        self._requests = requests
        self._instances = [instance for item in items for instance in item.instances]

    @property
    def item_names(self) -> list[str]:
        """The column `item` of its per-item tables."""
        return [item.identity for item in self._items]

    @property
    def items(self) -> int:
        """Rows of the per-item table."""
        return len(self._items)

    @property
    def longest(self) -> int:
        """Tokens of the longest request; of generating tasks, the most it can be."""
        return self._requests.longest

    @property
    def tokens(self) -> int:
        """Forward tokens of one mask; of generating tasks, the most it can be."""
        return self._requests.tokens

    @property
    def scoring(self) -> str:
        """How the last evaluation went: `packed` or `reference`; empty before the first."""
        return self._requests.scoring

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that an evaluation will have."""
        if self._requests.rolling:
            return PERPLEXITY_METRICS
        names = (column for columns in self._columns.values() for column in columns.values())
        return tuple(dict.fromkeys(names))

    def evaluate(
        self,
        model: PreTrainedModel,
        *,
        batch_tokens: int = 8192,
        advance: Callable[[int], None] | None = None,
    ) -> Evaluation:
        """Score all items with the model as it is now; see `Evaluator.evaluate`."""
        positions = positions_of(model.config)
        if positions is not None and self.longest > positions:
            raise TaskError(
                f"task {self.name!r} has requests of {self.longest} tokens, but the model has "
                f"{positions} positions: it must be prepared with that max_length"
            )
        meter = Meter(self.tokens, advance)
        responses = self._requests.answer(model, batch_tokens, meter)
        meter.finish()
        try:
            for instance, response in zip(self._instances, responses, strict=True):
                # Filters take the first response, which would be an earlier mask's.
                instance.filtered_resps.clear()
                instance.resps[:] = [response] * instance.repeats
            return evaluation(self.name, self._table(responses))
        finally:
            for instance in self._instances:
                instance.resps.clear()
                instance.filtered_resps.clear()

    def _table(self, responses: Sequence[Any]) -> pd.DataFrame:
        """The per-item table; see `mbench.core.evaluation`."""
        for task in self._tasks.values():
            task.apply_filters()
        rows = []
        for item in self._items:
            row: dict[str, Any] = {"item": item.identity}
            if len(self._tasks) > 1:
                row["subtask"] = item.subtask
            rows.append(row | self._metrics_of(item))
        return pd.DataFrame(rows).assign(**self._requests.columns(responses))

    def _metrics_of(self, item: Item) -> dict[str, float]:
        """lm-eval's own figures of an item, by column."""
        task = self._tasks[item.subtask]
        figures: dict[str, float] = {}
        for filtered in item.instances[0].filtered_resps:
            results = task.process_results(
                item.doc, [instance.filtered_resps[filtered] for instance in item.instances]
            )
            if self._requests.rolling:
                # (log-likelihood, bytes), the text's before any detokenisation.
                figures["bytes"] = results["bits_per_byte"][1]
                continue
            for (metric, applied), column in self._columns[item.subtask].items():
                if applied == filtered:
                    figures[column] = float(results.get(metric, math.nan))
        return figures
