"""What masks are evaluated on: a suite's tasks and texts, located and fingerprinted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbench.core.chat import ChatSpec
from mbench.core.errors import TaskError
from mbench.core.suite import ExpectedWork, LmEvalTask, PerplexityTask, Suite
from mbench.core.suite_inputs import TextSource
from mbench.evaluate.lm_eval.fingerprint import task_fingerprint
from mbench.evaluate.lm_eval.task_code import code_of
from mbench.evaluate.lm_eval.task_data import LeafData, data_of
from mbench.plan.computing_code import Code
from mbench.plan.registry import Registry
from mbench.plan.yaml_source import Place, YamlSource
from mbench.storage.hub.answers import HubUnreachable
from mbench.storage.inputs import Fetchable, Inputs
from mbench.storage.texts import Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mbench.core.evaluation import Evaluator


@dataclass(frozen=True)
class TaskSize:
    """What was counted when a task was built for a model, as the store keeps it."""

    items: int
    """Rows of its per-item table."""
    tokens: int
    """Forward tokens of one mask; of generating tasks, the most it can be."""
    generated: int
    """Of these, tokens that are generated one after another, at most."""


@dataclass(frozen=True)
class PlannedTask:
    """One task or perplexity text, the same for every mask."""

    name: str
    spec: PerplexityTask | LmEvalTask
    """What the suite says of it; its `chat` is the suite's where it has none of its own."""
    fingerprint: Mapping[str, Any]
    """What decides its items and how they are scored, as JSON values."""
    text: Text | None = None
    """Of perplexity: the documents."""
    directories: tuple[Path, ...] = ()
    """Of an lm-eval task: the folders of local task files, the suite's own before plugins'."""
    data: tuple[LeafData, ...] = ()
    """Of an lm-eval task: that of all its leaves."""
    out_of_reach: str = ""
    """Of an lm-eval task that is planned without its data: why they cannot be had."""

    def prepare(self, positions: int | None, tokenizer: PreTrainedTokenizerBase) -> Evaluator:
        """Build and tokenise it for a model that accepts so many tokens; None: any number.

        Raises `TaskError` or `CorpusError` where that fails.
        """
        from mbench.evaluate.prepare import prepare_task, prepare_text

        if isinstance(self.spec, LmEvalTask):
            return prepare_task(
                self.name, self.spec, self.directories, self.data, positions, tokenizer
            )
        assert self.text is not None
        return prepare_text(self.name, self.spec, self.text, positions, tokenizer)

    @property
    def fetchables(self) -> list[Fetchable]:
        """What must be fetched before it can be prepared."""
        datasets = [self.text.fetchable if self.text else None, *(d.dataset for d in self.data)]
        return [each for each in datasets if each is not None]

    @property
    def metric(self) -> str:
        """The metric that ranks and is shown first."""
        return "perplexity" if isinstance(self.spec, PerplexityTask) else self.spec.metric

    @property
    def expected_items(self) -> int | None:
        """What the suite states; another number is refused."""
        work = self._expected_work
        return work.items if work else None

    @property
    def expected_size(self) -> TaskSize | None:
        """As far as the suite tells, for plans made before its first preparation."""
        if isinstance(self.spec, PerplexityTask):
            tokens = self.spec.expect_tokens
            if self.spec.max_windows is not None:
                tokens = self.spec.max_windows * (self.spec.window - 1)
            return None if tokens is None else TaskSize(self.spec.max_windows or 0, tokens, 0)
        work = self._expected_work
        return TaskSize(work.items, work.tokens, work.generated) if work else None

    @property
    def chat(self) -> ChatSpec | None:
        """What decides how its prompts are put into a model's chat template; None: they are not."""
        return self.spec.chat if isinstance(self.spec, LmEvalTask) else None

    @property
    def publishes_items(self) -> bool:
        """Whether a report may have the texts of its items beside it."""
        return isinstance(self.spec, LmEvalTask) and self.spec.publish_items

    @property
    def _expected_work(self) -> ExpectedWork | None:
        # A limit counts within each task of a group, so what is left of a group is not known here.
        if isinstance(self.spec, PerplexityTask) or self.spec.limit is not None:
            return None
        return self.spec.expect


def plan_tasks(
    suite: Suite,
    source: YamlSource,
    registry: Registry,
    code: Code,
    inputs: Inputs,
    trust_expected: bool = False,
) -> tuple[PlannedTask, ...]:
    """The suite's perplexity texts and lm-eval tasks, in its order.

    With `trust_expected`, those whose data are out of reach are known by name alone.
    Raises the user's first mistake as an `MbenchError`.
    """
    texts = _perplexities(suite, source, registry, code, inputs, trust_expected)
    return (*texts, *_lm_eval_tasks(suite, source, registry, inputs, trust_expected))


def find_text(
    place: Place,
    spec: TextSource,
    source: YamlSource,
    registry: Registry,
    code: Code,
    inputs: Inputs,
    trust_expected: bool,
) -> Text:
    """The text that a suite names at `place`; no document is read yet."""
    if spec.plugin is not None and spec.plugin not in registry.corpora:
        at = (*place, "source", "plugin")
        raise source.unknown(at, "plugin corpus", spec.plugin, registry.corpora)
    made_by: str | dict[str, str] = code.of("text")
    if spec.plugin is not None:
        made_by = code.source_of([registry.origins["corpus", spec.plugin].code]).sha256
    return Text(".".join(place), spec, registry.corpora, made_by, inputs, trust_expected)


def identity_of(text: Text, place: Place, source: YamlSource) -> dict[str, Any]:
    """What determines a text; what is wrong with its files is told with the suite's line."""
    with source.naming((*place, "source")):
        return text.identity()


def _perplexities(
    suite: Suite,
    source: YamlSource,
    registry: Registry,
    code: Code,
    inputs: Inputs,
    trust_expected: bool,
) -> Iterator[PlannedTask]:
    for name, spec in suite.perplexity.items():
        place = ("perplexity", name)
        text = find_text(place, spec.source, source, registry, code, inputs, trust_expected)
        # All but what decides no figure: a key that suites gain some day counts from its first day.
        settings = spec.model_dump(exclude={"source", "expect_tokens"})
        fingerprint = {"kind": "perplexity", "text": identity_of(text, place, source), **settings}
        yield PlannedTask(name, spec, fingerprint, text=text)


def _lm_eval_tasks(
    suite: Suite, source: YamlSource, registry: Registry, inputs: Inputs, trust_expected: bool
) -> Iterator[PlannedTask]:
    for name, written in suite.tasks.items():
        spec = written.model_copy(update={"chat": suite.chat_for(written.chat)})
        of_suite = [Path(os.path.expanduser(spec.directory))] if spec.directory else []
        directories = (*of_suite, *registry.task_directories)
        try:
            _refuse_untrusted(name, spec, directories, registry.task_directories)
            data, identities, problem = _data(name, spec, directories, inputs, trust_expected)
            fingerprint = task_fingerprint(name, spec, directories, identities)
        except TaskError as error:
            raise source.error(("tasks", name), str(error)) from None
        yield PlannedTask(
            name, spec, fingerprint, directories=directories, data=data, out_of_reach=problem
        )


def _data(
    name: str,
    spec: LmEvalTask,
    directories: Sequence[Path],
    inputs: Inputs,
    trust_expected: bool,
) -> tuple[tuple[LeafData, ...], list[Mapping[str, Any]], str]:
    """The data of a task's members, what identifies them, and why they are out of reach."""
    try:
        data = data_of(spec.lm_eval_name(name), directories, inputs)
        return data, [each.identity(inputs) for each in data], ""
    except TaskError as error:
        if trust_expected and isinstance(error.__cause__, HubUnreachable):
            return (), [{"out of reach": spec.lm_eval_name(name)}], str(error)
        raise


def _refuse_untrusted(
    name: str, spec: LmEvalTask, directories: Sequence[Path], installed: Sequence[Path]
) -> None:
    code = () if spec.trust_code else code_of(spec.lm_eval_name(name), directories, installed)
    for path, function in code:
        raise TaskError(
            f"task {name!r}: {path} runs !function {function.reference}, which can do anything on"
            " this machine: set `trust_code: true` if you trust it"
        )
