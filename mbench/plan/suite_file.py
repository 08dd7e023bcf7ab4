"""Reads a suite file, applies the options of the command line, and checks the result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mbench.core.errors import SuiteError, TaskError
from mbench.core.suite import Suite
from mbench.evaluate.lm_eval import task_files
from mbench.plan.yaml_source import YamlSource, describe_error


def load_suite(
    path: Path,
    *,
    set_values: Sequence[str] = (),
    models: Sequence[str] = (),
    retain: Sequence[float] = (),
    methods: Sequence[str] = (),
    limit: int | None = None,
    texts: Sequence[str] = (),
    tasks: Sequence[str] = (),
) -> tuple[Suite, YamlSource]:
    """Read and validate a suite file, narrowed or redirected by the command line.

    Raises `SuiteError`, one line `file:line:column: what is wrong (valid choices)`. Names of
    methods that the file does not list are left for the plan, which knows the plugins.
    """
    source = YamlSource.read(path)
    for assignment in set_values:
        source.assign(assignment)
    for redirection in models:
        _redirect_model(source, redirection)
    for redirection in texts:
        _redirect_text(source, redirection)
    for redirection in tasks:
        _redirect_task(source, redirection)
    chosen = [redirection for redirection in models if "=" not in redirection]
    if chosen:
        _drop_models(source, [n for n in _listed(source, "models") if n not in chosen])
    if retain:
        source.replace(("retain",), list(retain), "--retain")
    if methods:
        _choose_methods(source, methods)
    if limit is not None:
        _limit(source, limit)
    # `random:` alone is a method with nothing changed.
    for section in ("methods", "candidates"):
        listed = source.data.get(section)
        for name, method in listed.items() if isinstance(listed, dict) else ():
            if method is None:
                listed[name] = {}
    try:
        suite = Suite.model_validate(source.plain())
    except ValidationError as error:
        raise describe_error(source, error, Suite) from None
    _check_references(suite, source)
    return suite, source


def _redirect_model(source: YamlSource, redirection: str) -> None:
    name, separator, target = redirection.partition("=")
    listed = source.data.get("models")
    listed = listed if isinstance(listed, dict) else {}
    if separator and not target:
        raise SuiteError(f"--model takes NAME or NAME=PATH_OR_ID, got {redirection!r}")
    if name not in listed:
        raise source.unknown(("models",), "model", name, listed, "--model")
    if not separator:
        return
    before = listed[name] if isinstance(listed[name], dict) else {}
    kept = {key: before[key] for key in ("dtype",) if key in before}
    looks_local = Path(target).exists() or target.startswith((".", "/", "~"))
    place = {"path": target} if looks_local else {"hub": target}
    source.replace(("models", name), kept | place, f"--model {redirection}")


def _drop_models(source: YamlSource, names: Sequence[str]) -> None:
    """Leave out models, with what methods say of them."""
    for name in names:
        del source.data["models"][name]
        for section in ("methods", "candidates"):
            for method in _listed(source, section).values():
                of_models = method.get("models") if isinstance(method, dict) else None
                if isinstance(of_models, dict):
                    of_models.pop(name, None)


def _split(source: YamlSource, option: str, redirection: str, what: str) -> tuple[str, str]:
    name, separator, target = redirection.partition("=")
    if not separator or not target:
        raise source.error((), f"{option} takes NAME={what}, got {redirection!r}")
    return name, target


def _redirect_text(source: YamlSource, redirection: str) -> None:
    """The documents of a corpus or a perplexity text from a file; the field of a record stays."""
    name, target = _split(source, "--text", redirection, "FILE")
    sections = [
        section for section in ("corpora", "perplexity") if name in _listed(source, section)
    ]
    if len(sections) == 2:
        raise source.error(
            (), f"--text: {name!r} is both a corpus and a perplexity text: use --set"
        )
    if not sections:
        known = [*_listed(source, "corpora"), *_listed(source, "perplexity")]
        raise source.unknown((), "text", name, known, "--text")
    entry = _listed(source, sections[0])[name]
    before = entry.get("source") if isinstance(entry, dict) else None
    field = {"field": before["field"]} if isinstance(before, dict) and "field" in before else {}
    place = (sections[0], name, "source")
    source.replace(place, {"files": [target], **field}, f"--text {redirection}")
    if sections[0] == "perplexity":
        entry.pop("expect_tokens", None)


def _redirect_task(source: YamlSource, redirection: str) -> None:
    """A task from a local task file, which may name it differently."""
    name, target = _split(source, "--task", redirection, "FILE.yaml")
    listed = _listed(source, "tasks")
    if name not in listed:
        raise source.unknown(("tasks",), "task", name, listed, "--task")
    path = Path(target).expanduser()
    try:
        config = task_files.read_file(path).config
    except TaskError as error:
        raise SuiteError(f"--task: {error}") from None
    task = config.get("task") if isinstance(config.get("task"), str) else config.get("group")
    if not isinstance(task, str):
        raise SuiteError(f"--task: {path} names neither a task nor a group")
    before = dict(listed[name] or {})
    before.pop("expect", None)
    place = {"task": task, "directory": str(path.parent)}
    source.replace(("tasks", name), before | place, f"--task {redirection}")


def _listed(source: YamlSource, section: str) -> dict[str, Any]:
    listed = source.data.get(section)
    return listed if isinstance(listed, dict) else {}


def _choose_methods(source: YamlSource, methods: Sequence[str]) -> None:
    """The suite's other methods stay as candidates that the chosen ones may build upon."""
    listed = source.data.get("methods")
    if not isinstance(listed, dict):
        return
    candidates = source.data.setdefault("candidates", {})
    for name in [name for name in listed if name not in methods]:
        candidates[name] = listed.pop(name)
    for name in methods:
        if name not in listed:
            known = candidates.pop(name, None)
            source.replace(("methods", name), known or {}, f"--method {name}")


def _limit(source: YamlSource, limit: int) -> None:
    if limit < 1:
        raise SuiteError(f"--limit takes a number of items from 1, got {limit}")
    for section, key in (("tasks", "limit"), ("perplexity", "max_windows")):
        listed = source.data.get(section)
        for name, value in listed.items() if isinstance(listed, dict) else ():
            if value is None:
                listed[name] = {}
            elif not isinstance(value, dict):
                continue
            before = source.data[section][name].get(key)
            if not isinstance(before, int) or before > limit:
                source.replace((section, name, key), limit, "--limit")


def _check_references(suite: Suite, source: YamlSource) -> None:
    """Names inside the suite must exist in it, and nothing may be listed twice."""
    for field in ("retain", "seeds", "calibration"):
        _no_repeats(source, (field,), getattr(suite, field))
    for place, names in [
        (("calibration",), suite.calibration),
        *[(("methods", name, "corpora"), m.corpora or ()) for name, m in suite.methods.items()],
        *[
            (("candidates", name, "corpora"), m.corpora or ())
            for name, m in suite.candidates.items()
        ],
    ]:
        _no_repeats(source, place, names)
        for index, name in enumerate(names):
            if name not in suite.corpora:
                raise source.unknown((*place, index), "corpus", name, suite.corpora)
    for name, method in suite.methods.items():
        _no_repeats(source, ("methods", name, "seeds"), method.seeds or ())
        for model in method.models:
            if model not in suite.models:
                raise source.unknown(
                    ("methods", name, "models", model), "model", model, suite.models
                )
    evaluated = [*suite.perplexity, *suite.tasks]
    if not evaluated:
        raise source.error((), "nothing to evaluate: give `tasks`, `perplexity` or both")
    _no_repeats(source, ("tasks",), evaluated)
    if suite.average is not None:
        _no_repeats(source, ("average", "tasks"), suite.average.tasks)
        if suite.average.name in evaluated:
            place = ("average", "name")
            raise source.error(place, f"{suite.average.name!r} is also the name of a task")
        for index, name in enumerate(suite.average.tasks):
            if name not in suite.tasks:
                raise source.unknown(("average", "tasks", index), "task", name, suite.tasks)
    if "none" in suite.methods:
        raise source.error(("methods", "none"), "'none' is the unpruned model, always included")


def _no_repeats(source: YamlSource, place: tuple[Any, ...], values: Sequence[Any]) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise source.error((*place, index), f"{value!r} is listed twice")
