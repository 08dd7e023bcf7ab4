"""What masks are evaluated on: a suite's tasks and texts, found and fingerprinted but not read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mbench.core.errors import TaskError
from mbench.core.specs import PerplexitySpec, TaskSpec
from mbench.core.suite import Suite, TextSource
from mbench.evaluate.lm_eval import catalogue
from mbench.evaluate.lm_eval.fingerprint import task_fingerprint
from mbench.plan.registry import Registry
from mbench.plan.yaml_source import Place, YamlSource
from mbench.storage.texts import Text


@dataclass(frozen=True)
class PlannedTask:
    """One task or perplexity text, the same for every mask."""

    name: str
    metric: str
    spec: TaskSpec | PerplexitySpec
    text: Text | None
    """For perplexity, the documents."""
    fingerprint: Mapping[str, Any]
    """What decides its items and how they are scored."""
    expected_items: int | None = None
    """What the suite states; another number is refused."""
    expected_tokens: int | None = None
    """Forward tokens of one mask as far as the suite tells, for plans made before it was built."""


def plan_tasks(suite: Suite, source: YamlSource, registry: Registry) -> tuple[PlannedTask, ...]:
    """The suite's perplexity texts and lm-eval tasks, in its order.

    Raises the user's first mistake as an `MbenchError`.
    """
    return (*_perplexities(suite, source, registry), *_lm_eval_tasks(suite, source, registry))


def find_text(place: Place, spec: TextSource, source: YamlSource, registry: Registry) -> Text:
    """The text that a suite names at `place`; no document is read yet."""
    if spec.plugin is not None and spec.plugin not in registry.corpora:
        at = (*place, "source", "plugin")
        raise source.unknown(at, "plugin corpus", spec.plugin, registry.corpora)
    return Text(".".join(place), spec, registry.corpora)


def _perplexities(suite: Suite, source: YamlSource, registry: Registry) -> list[PlannedTask]:
    planned = []
    for name, task in suite.perplexity.items():
        text = find_text(("perplexity", name), task.source, source, registry)
        spec = PerplexitySpec(
            name=name,
            protocol=task.protocol,
            window=task.window,
            stride=task.stride,
            join=task.join,
            max_windows=task.max_windows,
        )
        settings = {key: value for key, value in asdict(spec).items() if key != "name"}
        fingerprint = {"kind": "perplexity", "text": text.identity(), **settings}
        windows = None if task.max_windows is None else task.max_windows * (task.window - 1)
        planned.append(
            PlannedTask(
                *(name, "perplexity", spec, text, fingerprint),
                expected_tokens=windows or task.expect_tokens,
            )
        )
    return planned


def _lm_eval_tasks(suite: Suite, source: YamlSource, registry: Registry) -> list[PlannedTask]:
    planned = []
    for name, task in suite.tasks.items():
        directories = [Path(task.directory).expanduser()] if task.directory else []
        spec = TaskSpec(
            name=name,
            task=task.task or name,
            directories=tuple([*directories, *registry.task_directories]),
            limit=task.limit,
            num_fewshot=task.num_fewshot,
            max_gen_toks=task.max_gen_toks,
        )
        try:
            local = catalogue.read(spec.directories).names
            if spec.task not in local and spec.task not in catalogue.builtin_names():
                raise catalogue.unknown(spec.task, {*local, *catalogue.builtin_names()})
            fingerprint = task_fingerprint(spec)
        except TaskError as error:
            raise source.error(("tasks", name), str(error)) from None
        # A limit counts within each task of a group, so what is left of a group is not known here.
        expect = task.expect if task.limit is None else None
        planned.append(
            PlannedTask(
                *(name, task.metric, spec, None, fingerprint),
                expected_items=expect.items if expect else None,
                expected_tokens=expect.tokens if expect else None,
            )
        )
    return planned
