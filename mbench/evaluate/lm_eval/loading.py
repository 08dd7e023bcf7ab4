"""Loads lm-eval's task objects by name, and turns every failure into one line."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import lm_eval.api.task
import numpy as np
import torch
from lm_eval.api.registry import metric_registry
from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._yaml_loader import load_yaml

from mbench.core.errors import MbenchError, TaskError, one_line, shown
from mbench.core.replaced import replaced
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval import task_files
from mbench.evaluate.lm_eval.datasets_from_disk import loaded_from
from mbench.evaluate.lm_eval.generation_options import LIMITS
from mbench.evaluate.lm_eval.quiet import quiet
from mbench.evaluate.lm_eval.sandbox import confined
from mbench.evaluate.lm_eval.task_data import LeafData
from mbench.storage.hub.answers import HubRefusal
from mbench.storage.json_crashes import crashing

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task
    from lm_eval.tasks._index import Entry

FEWSHOT_SEED = 1234
"""For drawing few-shot examples: lm-eval's own default."""

COMMAND_LINE = ("apply_chat_template", "fewshot_as_multiturn", "system_instruction")
"""Options of lm-eval's command line, which a task file cannot set."""

MOST_REPEATS = 10_000
"""Of one request; a task of lm-eval has at most 64."""

UNREACHABLE = (ConnectionError, OSError, datasets.exceptions.DatasetNotFoundError)


class _Factory(TaskFactory):  # type: ignore[misc]  # lm-eval is not typed
    """Looks for data files next to the task file, and remembers the dataset for error messages."""

    def __init__(self, chains: Mapping[Path, tuple[Path, ...]]) -> None:
        super().__init__()
        self.chains = chains
        self.dataset = ""

    def _load_full_config(
        self, entry: Entry, overrides: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        if entry.yaml_path:
            # Before its functions are imported, and with them what they need.
            _refuse(entry.name, load_yaml(entry.yaml_path, resolve_func=False))
        config: dict[str, Any] = super()._load_full_config(entry, overrides)
        if callable(config.get("process_docs")):
            config["process_docs"] = _once(config["process_docs"])
        parts = (config.get("dataset_path"), config.get("dataset_name"))
        self.dataset = "/".join(str(part) for part in parts if part)
        chain = self.chains.get(Path(entry.yaml_path).resolve()) if entry.yaml_path else None
        located = task_files.locate(config, chain) if chain else None
        if located is not None:
            config["dataset_kwargs"] = {**config["dataset_kwargs"], "data_files": located}
        return config


def _once(process: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Each split processed once: code may draw, and lm-eval calls it before and after answers."""
    known: list[tuple[Any, Any]] = []

    def processed(docs: Any) -> Any:
        for before, after in known:
            if before is docs:
                return after
        known.append((docs, process(docs)))
        return known[-1][1]

    return processed


@dataclass(frozen=True)
class Loaded:
    """What a name stands for."""

    tasks: Mapping[str, Task]
    """One, or the members of a group or tag, by lm-eval's names."""
    group: Group | None
    """If it is one."""


def load(
    name: str, spec: LmEvalTask, directories: Sequence[Path], data: Sequence[LeafData] = ()
) -> Loaded:
    """Load a task, or the members of a group or tag.

    Args:
        name: the suite's name of the task, which is lm-eval's too where `spec` gives none.
        spec: which task, and what of it.
        directories: folders of local task files.
        data: of its leaves; a dataset that is not among them is not fetched.

    Raises:
        TaskError: the name is unknown, a task file is malformed or asks for what is not supported,
            or data cannot be loaded.
    """
    wanted = spec.lm_eval_name(name)
    definition = task_files.find(wanted, directories)
    _refuse_crashing(wanted, data)
    own_metrics = replaced(lm_eval.api.task, "get_metric", _registered_metric)
    with quiet(), confined(), own_metrics, loaded_from(data):
        places = tuple(path.expanduser().resolve() for path in directories)
        manager = _manager(places, bool(definition.builtin))
        manager._factory = factory = _Factory({file.path: file.chain for file in definition.files})
        try:
            loaded = manager.load(wanted)
        except HubRefusal as error:
            raise TaskError(f"task {wanted!r}: {error}") from error
        except MbenchError:
            raise
        except UNREACHABLE as error:
            dataset = f"the dataset {factory.dataset}" if factory.dataset else "a dataset"
            raise TaskError(
                f"task {wanted!r} needs {dataset}, which cannot be read ({one_line(error)})"
            ) from error
        except Exception as error:
            raise TaskError(f"task {wanted!r} cannot be loaded: {_in_words(error)}") from error
    tasks = dict(loaded["tasks"])
    for subtask, task in tasks.items():
        _check(subtask, task)
        _set_examples(subtask, task, spec.num_fewshot)
        _set_generated(subtask, task, spec)
        _remember_templates(task)
    return Loaded(tasks, loaded["groups"].get(wanted))


def _in_words(error: Exception) -> str:
    """What the errors mean that lm-eval and datasets leave to Python."""
    if isinstance(error, KeyError) and "Unknown" in str(error):  # lm-eval's words: of a filter
        return " ".join(str(error.args[0]).split())
    if isinstance(error, KeyError):
        return f"there is no split or field {error}"
    if isinstance(error, StopIteration) or "corresponds to no data" in str(error):
        return "its data has no items"
    if isinstance(error, IndexError):
        return "there are no items, or the first one has a choice without text"
    return one_line(error)


def _refuse_crashing(name: str, data: Sequence[LeafData]) -> None:
    """Refuse JSON that would crash the process of whoever parses it."""
    of_json = [each for each in data if each.call is not None and each.call.path == "json"]
    for path in dict.fromkeys(
        p for each in of_json for paths in each.files.values() for p in paths
    ):
        found = crashing(path) if path.is_file() else None
        if found is not None:
            line, problem = found
            raise TaskError(f"task {name!r}: {path}:{line}: {problem}")


@contextmanager
def seeded() -> Iterator[None]:
    """Set the global random states as lm-eval does, for tasks that draw from them; put back."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(0)
    np.random.seed(1234)
    torch.default_generator.manual_seed(1234)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _refuse(name: str, config: Mapping[str, Any]) -> None:
    """Raise a `TaskError` for a task that asks for what is not supported."""
    if config.get("unsafe_code"):
        raise TaskError(f"task {name!r} executes generated code, which is not supported")
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        raise TaskError(f"task {name!r} needs images or audio, which is not supported")
    for option in COMMAND_LINE:
        if option in config:
            raise TaskError(
                f"task {name!r} has the key {option}, an option of lm-eval's command line:"
                " prompts are plain text here"
            )


def _registered_metric(name: str, hf_evaluate_metric: bool = False) -> Callable[..., Any]:
    """lm-eval's own metric of a name; it would fetch any other as code from a hub."""
    if hf_evaluate_metric or name not in metric_registry:
        raise TaskError(
            f"metric {name!r} is none of lm-eval's own: it would be fetched as code by the package"
            f" evaluate, which is not supported (lm-eval has: {', '.join(sorted(metric_registry))})"
        )
    metric: Callable[..., Any] = metric_registry.get(name)
    return metric


def _manager(directories: tuple[Path, ...], builtin: bool) -> TaskManager:
    if builtin:
        return _complete_manager(directories)
    return TaskManager(include_path=list(directories), include_defaults=False)


@cache
def _complete_manager(directories: tuple[Path, ...]) -> TaskManager:
    """With lm-eval's own tasks, which takes several seconds."""
    return TaskManager(include_path=list(directories))


def _check(name: str, task: Task) -> None:
    """The same for tasks that are classes or stand inside a group."""
    media = getattr(task, "MULTIMODAL", False)
    _refuse(name, {"unsafe_code": getattr(task, "UNSAFE_CODE", False), "doc_to_image": media})
    # A group may set it, too.
    repeats = task.get_config("repeats")
    if type(repeats) is not int or not 1 <= repeats <= MOST_REPEATS:
        raise TaskError(
            f"task {name!r} has repeats {shown(repeats)}, which must be a whole number from 1 to"
            f" {MOST_REPEATS}"
        )


def _set_examples(name: str, task: Task, wanted: int | None) -> None:
    """Set number and choice of few-shot examples, by the rules of lm-eval's own command line."""
    defined = task.get_config("num_fewshot")
    if wanted and defined == 0:
        raise TaskError(
            f"task {name!r} is zero-shot by definition: num_fewshot must be 0, not {wanted}"
        )
    if defined is None or wanted is not None:
        task.set_config(key="num_fewshot", value=wanted or 0)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)


def _set_generated(name: str, task: Task, spec: LmEvalTask) -> None:
    """Set how answers are generated, as lm-eval's own command line does with `gen_kwargs`."""
    limits = {} if spec.max_gen_toks is None else {"max_gen_toks": spec.max_gen_toks}
    given = {**spec.generation, **limits}
    if not given:
        return
    if task.OUTPUT_TYPE != "generate_until":
        key = "max_gen_toks" if limits else "generation"
        raise TaskError(
            f"task {name!r} has output_type {task.OUTPUT_TYPE}, so {key} does not apply"
        )
    twice = sorted(LIMITS & set(spec.generation))
    if twice:
        raise TaskError(
            f"task {name!r}: generation has {twice[0]}: write max_gen_toks beside it, not in it"
        )
    task.set_config(key="generation_kwargs", value=given, update=True)


def _remember_templates(task: Task) -> None:
    """Render each document's templates once; lm-eval compiles them anew for every item and mask."""
    for name in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        method = getattr(task, name, None)
        if method is not None:
            setattr(task, name, _remembering(method))


def _remembering(method: Callable[..., Any]) -> Callable[..., Any]:
    rendered: dict[bytes, Any] = {}

    def remembered(doc: Any, *others: Any) -> Any:
        if any(other is not None for other in others):
            return method(doc, *others)
        # lm-eval passes no number of the document, and a dict is no key: its content is.
        content = pickle.dumps(doc)
        if content not in rendered:
            rendered[content] = method(doc)
        return rendered[content]

    return remembered
