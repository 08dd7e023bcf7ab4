"""What determines a task's items and their scoring, as JSON values; does not import lm-eval."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mbench.core.errors import TaskError
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval import task_files
from mbench.evaluate.lm_eval.task_files import TaskFile, module_of
from mbench.storage.distributions import version_of
from mbench.storage.source_code import files_behind


def task_fingerprint(
    name: str,
    spec: LmEvalTask,
    directories: Sequence[Path],
    data: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Equal for tasks that score the same items in the same way, whatever a suite calls them.

    Local task files count by content: the YAML with all it includes, the Python files in the
    folder of each `!function` module and what the module imports. Built-in tasks count by name and
    lm-eval's version, which also decides how any task is scored.

    Args:
        name: the suite's name of the task, which is lm-eval's too where `spec` gives none.
        spec: which task, and what of it; with the `chat` that it has in the end.
        directories: folders of local task files.
        data: what identifies the data of each of its leaves (see `task_data`).

    Raises:
        TaskError: the name is unknown, a local task file is malformed, or a file it needs is
            missing.
    """
    task = spec.lm_eval_name(name)
    definition = task_files.find(task, directories)
    chain = {path for file in definition.files for path in file.chain}
    code = {path for file in definition.files for path in _code(file)}
    # All keys but those that affect no figure: so a key that is new in suites counts at once.
    settings = spec.model_dump(
        exclude={"task", "directory", "metric", "expect", "trust_code", "publish_items", "chat"}
    )
    # They came later: tasks without them keep their keys.
    if not spec.generation:
        del settings["generation"]
    chat = {} if spec.chat is None else {"chat": spec.chat.parts()}
    return {
        "kind": "lm-eval",
        "lm_eval": version_of("lm_eval"),
        "task": task,
        **settings,
        **chat,
        "builtin": sorted(definition.builtin),
        "yaml": _digests(chain),
        "code": _digests(code),
        "data": [dict(identity) for identity in data],
    }


def local_files(name: str, spec: LmEvalTask, directories: Sequence[Path]) -> list[Path]:
    """The local task files and all code that they refer to, sorted; raises as above."""
    files = task_files.find(spec.lm_eval_name(name), directories).files
    chain = {path for file in files for path in file.chain}
    return sorted(chain | {path for file in files for path in _code(file)})


def _code(file: TaskFile) -> Iterator[Path]:
    for function in file.functions:
        module = module_of(function)
        yield from module.parent.glob("*.py")
        yield from files_behind(module)


def _digests(paths: Iterable[Path]) -> list[str]:
    return sorted(_digest(path) for path in paths)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise TaskError(f"{path}: {error.strerror or 'cannot be read'}") from error
