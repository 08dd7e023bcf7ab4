"""Parses one lm-eval task file, within bounds, and checks the keys that tell tasks apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mbench.core.errors import TaskError, one_line, shown
from mbench.core.small_files import Unreadable, read_small_file
from mbench.core.yaml_bounds import BeyondBounds, YamlBounds

MOST_BYTES = 2**20
"""Of one file; lm-eval's own largest has a fiftieth of it."""

MOST_VALUES = 50_000


@dataclass(frozen=True)
class Function:
    """A `!function` reference of a task file."""

    reference: str
    """`module.function`."""
    folder: Path
    """Folder of the file that refers to it; a module there takes precedence over installed ones."""


def parse(path: Path, *, repeats: bool = False) -> tuple[dict[str, Any], list[Function]]:
    """A task file's keys, and the functions that it refers to.

    Args:
        path: the file.
        repeats: whether a key may be repeated; some of lm-eval's own files do so.

    Raises:
        FileNotFoundError: there is none.
        TaskError: it is no YAML mapping, repeats a key, or a key that names tasks or data has a
            value of another kind.
    """
    functions: list[Function] = []
    fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    bounds = YamlBounds(MOST_VALUES, plain=False)
    try:
        text = read_small_file(path, MOST_BYTES)
        for event in yaml.parse(text, Loader=fast):
            bounds.see(event)
        config = yaml.load(text, Loader=_loader(path, functions, repeats))
    except Unreadable as error:
        raise TaskError(f"{path}: {error}") from error
    except BeyondBounds as error:
        raise _malformed(path, error.mark, error.problem) from error
    except yaml.MarkedYAMLError as error:
        raise _malformed(path, error.problem_mark, str(error.problem)) from error
    # What is wrong with explicit tags of whole mappings and lists has no place.
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise _malformed(path, None, one_line(error)) from error
    if not isinstance(config, dict):
        raise _malformed(path, None, f"it must be a mapping, not {type(config).__name__}")
    _check(path, config)
    return config, functions


def _malformed(path: Path, mark: Any, problem: str) -> TaskError:
    place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
    return TaskError(f"{place}: malformed task file: {' '.join(problem.split())}")


def _loader(path: Path, functions: list[Function], repeats: bool) -> type[yaml.SafeLoader]:
    """A loader that adds `!function` references to a list, and may refuse repeated keys."""

    # libyaml's fast loader is not in every build of PyYAML; its class is known at run time only.
    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except yaml.YAMLError:
                raise
            # What the conversions of single values raise, such as a date of the 13th month.
            except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
                problem = f"this is no {node.tag.rpartition(':')[2]}: {shown(node.value)}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from error

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            names = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in names and not repeats:
                    problem = f"the key {shown(key.value)} is repeated"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                names.add(key.value)
            mapping: dict[Any, Any] = super().construct_mapping(node, deep)
            return mapping

    def function(_: yaml.SafeLoader, node: yaml.Node) -> Function:
        module, _, name = (
            node.value.rpartition(".") if isinstance(node.value, str) else ("", "", "")
        )
        if not all(part.isidentifier() for part in (*module.split("."), name)):
            problem = f"!function takes module.function, got {shown(node.value)}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        functions.append(Function(node.value, path.parent))
        return functions[-1]

    Loader.add_constructor("!function", function)
    return Loader


def _check(path: Path, config: Mapping[Any, Any]) -> None:
    """Refuse what would not be understood as names of tasks, files and datasets."""

    def refuse(key: str, value: Any, right: str) -> None:
        raise TaskError(f"{path}: malformed task file: {key} must be {right}, not {shown(value)}")

    for key in config:
        if not isinstance(key, str):
            refuse("a key", key, "text")
    for key in ("group", "dataset_path"):
        if not isinstance(config.get(key), str | None):
            refuse(key, config[key], "text")
    for key in ("include", "tag"):
        if not _is_text_or_list(config.get(key)):
            refuse(key, config[key], "text or a list of texts")
    name = config.get("dataset_name")
    if not isinstance(name, str | None):
        refuse("dataset_name", name, "text: put it in quotes")
    options = config.get("dataset_kwargs")
    if not isinstance(options, dict | None) or not _keys_are_text(options):
        refuse("dataset_kwargs", options, "a mapping whose keys are text")
    files = (options or {}).get("data_files")
    for part in files.values() if isinstance(files, dict) else [files]:
        if (part is None and files is not None) or not _is_text_or_list(part):
            refuse("data_files", files, "a file, a list of files, or a mapping of splits to them")
    task = config.get("task")
    if isinstance(task, list):
        _check_members(path, task)
    elif not isinstance(task, str | None):
        refuse("task", task, "a name or a group's list")


def _keys_are_text(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _keys_are_text(part) for key, part in value.items())
    return all(map(_keys_are_text, value)) if isinstance(value, list) else True


def _is_text_or_list(value: Any) -> bool:
    parts = value if isinstance(value, list) else [value]
    return value is None or all(isinstance(part, str) for part in parts)


def _check_members(path: Path, members: list[Any]) -> None:
    for member in members:
        if isinstance(member, str):
            continue
        named = isinstance(member, dict) and ("task" in member or "group" in member)
        if not named or any(not isinstance(key, str) for key in member):
            raise TaskError(
                f"{path}: malformed task file: a group lists names of tasks, or mappings with"
                f" `task` or `group`, not {shown(member)}"
            )
        _check(path, member)
