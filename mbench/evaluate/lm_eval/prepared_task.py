"""lm-eval tasks on a model in memory: prepared once, then run on one mask after another.

Documents, prompts, filters and per-item metrics are lm-eval's own. What differs: prompts are made
and tokenised once, and log-likelihoods are computed packed where the model allows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mbench.core.batch_limit import BatchLimit
from mbench.core.errors import ChatError, MbenchError, TaskError, one_line
from mbench.core.evaluation import WEIGHT, Evaluation, GenerationWork, evaluation, joined
from mbench.core.item_texts import ItemText
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval.chat_prompts import ChatPrompts
from mbench.evaluate.lm_eval.encoding import length_limit
from mbench.evaluate.lm_eval.examples import remember_examples
from mbench.evaluate.lm_eval.generation import GenerationRequests
from mbench.evaluate.lm_eval.items import Item, Prompt, read_items, text_of
from mbench.evaluate.lm_eval.loading import load, seeded
from mbench.evaluate.lm_eval.loglikelihood import LoglikelihoodRequests
from mbench.evaluate.lm_eval.metrics import Figures, figures_of
from mbench.evaluate.lm_eval.quiet import quiet
from mbench.evaluate.lm_eval.sandbox import confined
from mbench.evaluate.lm_eval.scoring import figures_of_item, rehearse
from mbench.evaluate.lm_eval.task_data import LeafData
from mbench.evaluate.meter import Meter
from mbench.moe.config import positions_of

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Requests = LoglikelihoodRequests | GenerationRequests


@dataclass(frozen=True)
class BuiltTask:
    """A task with its prompts: the same for every model, or in one tokenizer's chat template."""

    name: str
    """What results call it."""
    seed: int | None
    """As the suite gives it."""
    tasks: Mapping[str, Task]
    """Its members by name."""
    group: Group | None
    """If it is one."""
    items: Sequence[Item]
    examples: Mapping[str, Sequence[Any]]
    """Member -> the documents of each of its items that few-shot examples were made of."""
    figures: Figures
    chat: ChatPrompts | None = None
    """What put its prompts into a chat template; None: they are plain text."""

    def tokenised(self, tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> PreparedTask:
        """Tokenise its requests; see `prepare`."""
        limit = length_limit(tokenizer, max_length)
        requests: Requests
        sampled = False
        with quiet():
            if self.items[0].instances[0].request_type == "generate_until":
                requests = GenerationRequests(
                    self.name, self.items, tokenizer, limit, self.seed or 0
                )
                sampled = requests.sampled
            else:
                requests = LoglikelihoodRequests(
                    self.name, self.items, tokenizer, limit, rolling=self.figures.rolling
                )
        if self.seed is not None and not sampled:
            raise TaskError(f"task {self.name!r} draws no answers, so seed does not apply")
        return PreparedTask(self, requests)


def build(
    name: str,
    spec: LmEvalTask,
    directories: Sequence[Path],
    data: Sequence[LeafData] = (),
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> BuiltTask:
    """Load a task and make its prompts.

    Args:
        name: what results call it; lm-eval's name too where `spec` gives none.
        spec: which task, and what of it.
        directories: folders of local task files; their tasks go before lm-eval's own of the same
            name. `spec.directory` is ignored.
        data: of its leaves.
        tokenizer: into whose chat template prompts are put where `spec` has a `chat`; None: they
            stay plain text.

    Raises:
        TaskError: the name, the task file, its data or its metrics are not usable, or its prompts
            do not go into the chat template.
    """
    try:
        chat = None
        if tokenizer is not None and spec.chat is not None and spec.chat.template:
            chat = ChatPrompts(tokenizer, spec.chat)
        return _build(name, spec, directories, data, chat)
    except ChatError as error:
        raise TaskError(f"task {name!r}: {error}") from error
    except MbenchError:
        raise
    # A task is code and data of others, which lm-eval takes as they come: whatever they raise, and
    # where a wrong type of a key comes to light, nobody can foresee.
    except (Exception, SystemExit) as error:
        raise TaskError(f"task {name!r} cannot be built: {one_line(error)}") from error


def _build(
    name: str,
    spec: LmEvalTask,
    directories: Sequence[Path],
    data: Sequence[LeafData],
    chat: ChatPrompts | None,
) -> BuiltTask:
    items: list[Item] = []
    examples = {}
    with quiet(), confined(), seeded():
        loaded = load(name, spec, directories, data)
        for subtask, task in loaded.tasks.items():
            examples[subtask] = remember_examples(subtask, task)
            try:
                if chat is None:
                    task.build_all_requests(limit=spec.limit, rank=0, world_size=1)
                else:
                    chat.make(subtask, task, spec.limit)
                items += read_items(subtask, task, prefixed=len(loaded.tasks) > 1)
            except ChatError:
                raise
            except Exception as error:
                raise TaskError(
                    f"task {subtask!r}: its prompts cannot be made: {one_line(error)}"
                ) from error
        if not items:
            raise TaskError(f"task {name!r} has no items")
        sizes = Counter(item.subtask for item in items)
        figures = figures_of(name, loaded.tasks, loaded.group, sizes)
        kinds = {instance.request_type for item in items for instance in item.instances}
        if len(kinds) > 1:
            raise TaskError(
                f"task {name!r} mixes tasks of output types {', '.join(sorted(kinds))}: list its "
                "members one by one in the suite"
            )
        figures = rehearse(loaded.tasks, items, figures)
    return BuiltTask(name, spec.seed, loaded.tasks, loaded.group, items, examples, figures, chat)


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
        name: as for `build`.
        spec: as for `build`.
        directories: as for `build`.
        tokenizer: of the model.
        data: as for `build`.
        max_length: most tokens of a request, e.g. the model's positions; longer ones are
            truncated on the left. None: the tokenizer's own limit.

    Raises:
        TaskError: as `build`, or the lengths are not usable.
    """
    return build(name, spec, directories, data, tokenizer).tokenised(tokenizer, max_length)


class PreparedTask:
    """A task with its prompts tokenised; an `Evaluator`."""

    def __init__(
        self, built: BuiltTask, requests: Requests, numbers: Sequence[int] | None = None
    ) -> None:
        """`numbers`: which of a larger task's items these are; None: it is a whole one."""
        self.name = built.name
        self._tasks = built.tasks
        self._items = built.items
        self._figures = built.figures
        self.built = built
        """The task as it is for every model."""
        self.requests = requests
        self._numbers = range(len(built.items)) if numbers is None else numbers
        self._instances = [instance for item in built.items for instance in item.instances]

    @property
    def item_names(self) -> list[str]:
        """The column `item` of its per-item tables."""
        return [item.identity for item in self._items]

    @property
    def texts(self) -> list[ItemText]:
        """What its items ask, in the order of the items."""
        return [text_of(self._tasks[item.subtask], item) for item in self._items]

    @property
    def items(self) -> int:
        """Rows of the per-item table."""
        return len(self._items)

    @property
    def longest(self) -> int:
        """Tokens of the longest request; of generating tasks, the most it can be."""
        return self.requests.longest

    @property
    def tokens(self) -> int:
        """Forward tokens of one mask; of generating tasks, the most it can be."""
        return self.requests.tokens

    @property
    def generated(self) -> int:
        """Of `tokens`, those generated one after another, at most."""
        return self.requests.generated

    @property
    def together(self) -> Sequence[int]:
        """Every item by itself."""
        return range(len(self._items))

    def part(self, numbers: Sequence[int]) -> PreparedTask:
        """These of its items alone; see `Evaluator.part`."""
        items = [self._items[number] for number in numbers]
        own = [self._numbers[number] for number in numbers]
        return PreparedTask(replace(self.built, items=items), self.requests.part(numbers), own)

    def join(self, tables: Sequence[pd.DataFrame]) -> Evaluation:
        """The outcome of all items; see `Evaluator.join`."""
        table = joined(self.item_names, tables)
        self._refuse_gaps(table)
        return evaluation(self.name, table)

    @property
    def work(self) -> GenerationWork | None:
        """What generating the last answers took."""
        return self.requests.work

    @property
    def scoring(self) -> str:
        """How the last evaluation went: `packed` or `reference`; empty before the first."""
        return self.requests.scoring

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that an evaluation will have."""
        return self._figures.names

    @property
    def prompts(self) -> Sequence[Prompt]:
        """One for each request of each item, in order; of whole texts none."""
        return self.requests.prompts

    def evaluate(
        self,
        model: PreTrainedModel,
        *,
        batch_tokens: int | BatchLimit = 8192,
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
        responses = self.requests.answer(model, BatchLimit.of(batch_tokens), meter)
        meter.finish()
        try:
            for instance, of_instance in zip(self._instances, responses, strict=True):
                # Filters take the first response, which would be an earlier mask's.
                instance.filtered_resps.clear()
                instance.resps[:] = of_instance
            with quiet(), confined(), seeded():
                return evaluation(self.name, self._table(responses))
        finally:
            for instance in self._instances:
                instance.resps.clear()
                instance.filtered_resps.clear()

    def _table(self, responses: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
        """The per-item table; see `mbench.core.evaluation`."""
        for name, task in self._tasks.items():
            own = [each for item in self._items if item.subtask == name for each in item.instances]
            for ensemble in task._filters if own else ():
                ensemble.apply(own)
        rows = []
        for item in self._items:
            row: dict[str, Any] = {"item": item.identity}
            if len(self._tasks) > 1:
                row["subtask"] = item.subtask
            if self._figures.weights is not None:
                row[WEIGHT] = self._figures.weights[item.subtask]
            rows.append(row | figures_of_item(self._tasks[item.subtask], item, self._figures))
        table = pd.DataFrame(rows).assign(**self.requests.columns(responses))
        if "document" in table:
            table["document"] = list(self._numbers)
        self._refuse_gaps(table)
        return table

    def _refuse_gaps(self, table: pd.DataFrame) -> None:
        """A metric that only some items of a group's member have: lm-eval weighs these more."""
        if len(self._tasks) < 2:
            return
        for column in set(self._figures.names) & set(table):
            for subtask, missing in table[column].isna().groupby(table["subtask"]):
                if missing.nunique() > 1:
                    raise TaskError(
                        f"task {self.name!r}: {int(missing.sum())} of {len(missing)} items of"
                        f" {subtask} have no {column}: list its members one by one in the suite"
                    )
