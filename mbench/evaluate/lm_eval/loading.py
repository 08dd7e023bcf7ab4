"""Loads lm-eval's task objects by name, and turns every failure into one line."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import lm_eval.api.task
import lm_eval.models.huggingface
from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import TaskFactory
from transformers.utils import logging as transformers_logging

from mbench.core.errors import MbenchError, TaskError, one_line
from mbench.core.replaced import replaced
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval import catalogue

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from lm_eval.tasks._index import Entry

FEWSHOT_SEED = 1234
"""For drawing few-shot examples: lm-eval's own default."""

UNREACHABLE = (ConnectionError, OSError, datasets.exceptions.DatasetNotFoundError)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the messages, warnings and progress bars of lm-eval and its libraries off the terminal.

    Errors that they log still show.
    """
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    verbosity = transformers_logging.get_verbosity()
    bars = datasets.utils.logging.is_progress_bar_enabled()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        # Neither module has a switch for its bars.
        for module in (lm_eval.api.task, lm_eval.models.huggingface):
            silent = partial(module.tqdm, disable=True)
            stack.enter_context(replaced(module, "tqdm", silent))
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        transformers_logging.set_verbosity_error()
        datasets.disable_progress_bars()
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            transformers_logging.set_verbosity(verbosity)
            if bars:
                datasets.enable_progress_bars()


class _Factory(TaskFactory):  # type: ignore[misc]  # lm-eval is not typed
    """Looks for data files next to the task file, and remembers the dataset for error messages."""

    def __init__(self, chains: Mapping[Path, tuple[Path, ...]]) -> None:
        super().__init__()
        self.chains = chains
        self.dataset = ""

    def _load_full_config(
        self, entry: Entry, overrides: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        config: dict[str, Any] = super()._load_full_config(entry, overrides)
        parts = (config.get("dataset_path"), config.get("dataset_name"))
        self.dataset = "/".join(str(part) for part in parts if part)
        chain = self.chains.get(Path(entry.yaml_path).resolve()) if entry.yaml_path else None
        located = catalogue.locate(config, chain) if chain else None
        if located is not None:
            config["dataset_kwargs"] = {**config["dataset_kwargs"], "data_files": located}
        return config


def load(name: str, spec: LmEvalTask, directories: Sequence[Path]) -> dict[str, Task]:
    """The tasks that a name stands for, by lm-eval's names: one, or the members of a group or tag.

    Args:
        name: the suite's name of the task, which is lm-eval's too where `spec` gives none.
        spec: which task, and what of it.
        directories: folders of local task files.

    Raises:
        TaskError: nobody defines the name, a task file is malformed, or data cannot be had.
    """
    wanted = spec.lm_eval_name(name)
    definition = catalogue.find(wanted, directories)
    with quiet():
        places = tuple(path.expanduser().resolve() for path in directories)
        manager = _manager(places, bool(definition.builtin))
        manager._factory = factory = _Factory({file.path: file.chain for file in definition.files})
        try:
            loaded = manager.load(wanted)
        except MbenchError:
            raise
        except UNREACHABLE as error:
            dataset = f"the dataset {factory.dataset}" if factory.dataset else "a dataset"
            raise TaskError(
                f"task {wanted!r} needs {dataset}, which is neither in the local cache nor "
                f"reachable ({one_line(error)}); connect to the Hugging Face hub once, or set "
                "`directory` to a folder of task files whose data_files are local"
            ) from error
        except Exception as error:
            raise TaskError(f"task {wanted!r} cannot be loaded: {one_line(error)}") from error
    tasks = dict(loaded["tasks"])
    for subtask, task in tasks.items():
        _check(subtask, task)
        _set_examples(subtask, task, spec.num_fewshot)
        if spec.max_gen_toks is not None:
            _set_generated(subtask, task, spec.max_gen_toks)
    return tasks


def _manager(directories: tuple[Path, ...], builtin: bool) -> TaskManager:
    if builtin:
        return _complete_manager(directories)
    return TaskManager(include_path=list(directories), include_defaults=False)


@cache
def _complete_manager(directories: tuple[Path, ...]) -> TaskManager:
    """With lm-eval's own tasks, which takes several seconds."""
    return TaskManager(include_path=list(directories))


def _check(name: str, task: Task) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise TaskError(f"task {name!r} executes generated code, which is not supported")
    if getattr(task, "MULTIMODAL", False):
        raise TaskError(f"task {name!r} needs images or audio, which is not supported")


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


def _set_generated(name: str, task: Task, most: int) -> None:
    if task.OUTPUT_TYPE != "generate_until":
        raise TaskError(
            f"task {name!r} has output_type {task.OUTPUT_TYPE}, so max_gen_toks does not apply"
        )
    task.set_config(key="generation_kwargs", value={"max_gen_toks": most}, update=True)
