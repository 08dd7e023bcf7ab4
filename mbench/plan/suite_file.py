"""Reads a suite file, applies the options of the command line, and checks the result."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mbench.core.errors import SuiteError, TaskError, shown
from mbench.core.interfaces import WEIGHTS_ONLY
from mbench.core.suite import Suite
from mbench.evaluate.lm_eval import task_files
from mbench.plan.crossing import corpus_of, list_crossed
from mbench.plan.yaml_source import YamlSource, describe_error

MOST_COMBINATIONS = 1000
"""Of models and methods."""

MOST_NAMES = 500
"""Of corpora, of texts, and of tasks."""


def load_suite(path: Path, **narrowing: Any) -> tuple[Suite, YamlSource]:
    """Read and validate a suite file, narrowed or redirected as `narrowed` says."""
    source = YamlSource.read(path)
    return narrowed(source, **narrowing), source


def narrowed(
    source: YamlSource,
    *,
    set_values: Sequence[str] = (),
    models: Sequence[str] = (),
    retain: Sequence[float] = (),
    methods: Sequence[str] = (),
    limit: int | None = None,
    texts: Sequence[str] = (),
    tasks: Sequence[str] = (),
) -> Suite:
    """Narrow or redirect what was read, by the options of the command line, and validate it.

    Raises `SuiteError`, one line `file:line:column: what is wrong (valid choices)`. Names of
    methods that the file does not list are left for the plan, which knows the plugins.
    """
    for assignment in set_values:
        source.assign(assignment, methods)
    for redirection in models:
        _redirect_model(source, redirection)
    for redirection in texts:
        _redirect_text(source, redirection)
    for redirection in tasks:
        _redirect_task(source, redirection)
    list_crossed(source)
    chosen = [redirection for redirection in models if "=" not in redirection]
    if chosen:
        _drop_models(source, [n for n in source.section("models") if n not in chosen])
    if retain:
        source.replace(("retain",), list(retain), "--retain")
    if methods:
        _choose_methods(source, methods)
    if limit is not None:
        _limit(source, limit)
    return validated(source)


def validated(source: YamlSource) -> Suite:
    """The suite that was read; raises `SuiteError` with the place of the first mistake."""
    list_crossed(source)
    # `random:` alone is a method with nothing changed.
    for section in ("methods", "candidates"):
        listed = source.section(section)
        for name, method in listed.items():
            if method is None:
                listed[name] = {}
    try:
        suite = Suite.model_validate(source.plain())
    except ValidationError as error:
        raise describe_error(source, error, Suite) from None
    _check_size(suite, source)
    _check_references(suite, source)
    return suite


def _redirect_model(source: YamlSource, redirection: str) -> None:
    name, separator, target = redirection.partition("=")
    listed = source.section("models")
    if separator and not target:
        forms = "NAME, NAME=PATH, NAME=ID or NAME=ID@REVISION"
        raise SuiteError(f"--model takes {forms}, got {shown(redirection)}")
    if name not in listed:
        raise source.unknown(("models",), "model", name, listed, f"--model {redirection}")
    if not separator:
        return
    before = listed[name] if isinstance(listed[name], dict) else {}
    kept = {key: before[key] for key in ("dtype", "attention") if key in before}
    if os.path.exists(target) or target.startswith((".", "/", "~")):
        place = {"path": target}
    else:
        hub_id, at, revision = target.partition("@")
        place = {"hub": hub_id} | ({"revision": revision} if at else {})
    source.replace(("models", name), kept | place, f"--model {redirection}")


def _drop_models(source: YamlSource, names: Sequence[str]) -> None:
    """Leave out models, with what methods say of them, and checkpoints that were pruned of them."""
    for name in names:
        del source.data["models"][name]
        for section in ("methods", "candidates"):
            for method, entry in list(source.section(section).items()):
                if not isinstance(entry, dict):
                    continue
                if isinstance(entry.get("models"), dict):
                    entry["models"].pop(name, None)
                if "checkpoint" in entry and entry.get("model") == name:
                    del source.section(section)[method]


def _split(source: YamlSource, option: str, redirection: str, what: str) -> tuple[str, str]:
    name, separator, target = redirection.partition("=")
    if not separator or not target:
        raise SuiteError(f"{option} takes NAME={what}, got {shown(redirection)}")
    return name, target


def _redirect_text(source: YamlSource, redirection: str) -> None:
    """The documents of a corpus or a perplexity text from a file, read as the source before it."""
    name, target = _split(source, "--text", redirection, "FILE")
    sections = [each for each in ("corpora", "perplexity") if name in source.section(each)]
    if len(sections) == 2:
        raise SuiteError(f"--text: {name!r} is both a corpus and a perplexity text: use --set")
    if not sections:
        known = [*source.section("corpora"), *source.section("perplexity")]
        raise source.unknown((), "text", name, known, f"--text {redirection}")
    entry = source.section(sections[0])[name]
    if isinstance(entry, dict) and "mix" in entry:
        raise SuiteError(f"--text: {name!r} is a mix: redirect the corpora that it is mixed of")
    before = entry.get("source") if isinstance(entry, dict) else None
    before = before if isinstance(before, dict) else {}
    read_as = {key: before[key] for key in ("field", "messages", "nulls") if key in before}
    place = (sections[0], name, "source")
    source.replace(place, {"files": [target], **read_as}, f"--text {redirection}")
    if sections[0] == "perplexity":
        entry.pop("expect_tokens", None)


def _redirect_task(source: YamlSource, redirection: str) -> None:
    """A task from a local task file, which may name it differently."""
    name, target = _split(source, "--task", redirection, "FILE.yaml")
    listed = source.section("tasks")
    if name not in listed:
        raise source.unknown(("tasks",), "task", name, listed, f"--task {redirection}")
    path = Path(os.path.expanduser(target))
    try:
        config = task_files.read_file(path).config
    except TaskError as error:
        raise SuiteError(f"--task: {error}") from None
    task = config.get("task") if isinstance(config.get("task"), str) else config.get("group")
    if not isinstance(task, str):
        raise SuiteError(f"--task: {path} names neither a task nor a group")
    before = listed[name] if isinstance(listed[name], dict) else {}
    before = {key: value for key, value in before.items() if key != "expect"}
    place = {"task": task, "directory": str(path.parent)}
    source.replace(("tasks", name), before | place, f"--task {redirection}")


def _choose_methods(source: YamlSource, methods: Sequence[str]) -> None:
    """The suite's other methods stay as candidates that the chosen ones may build upon."""
    listed = source.data.get("methods")
    if not isinstance(listed, dict):
        return
    if source.data.get("candidates") is None:
        source.data["candidates"] = {}
    candidates = source.data["candidates"]
    if not isinstance(candidates, dict):
        return
    _refuse_shared_names(source)
    for name in [name for name in listed if name not in methods]:
        source.move(("methods", name), ("candidates", name))
    for name in methods:
        if name in candidates:
            source.move(("candidates", name), ("methods", name))
            source.changed.setdefault(("methods", name), f"--method {name}")
        elif name not in listed:
            source.replace(("methods", name), {}, f"--method {name}")


def _refuse_shared_names(source: YamlSource) -> None:
    for name in source.section("methods"):
        if name in source.section("candidates"):
            place = ("candidates", name)
            raise source.error(place, f"{name!r} is also a method, which others may build upon")


def _limit(source: YamlSource, limit: int) -> None:
    if limit < 1:
        raise SuiteError(f"--limit takes a number of items from 1, got {limit}")
    for section, key in (("tasks", "limit"), ("perplexity", "max_windows")):
        listed = source.section(section)
        for name, value in listed.items():
            if value is None:
                listed[name] = {}
            elif not isinstance(value, dict):
                continue
            before = listed[name].get(key)
            if not isinstance(before, int) or before > limit:
                source.replace((section, name, key), limit, "--limit")


def _check_size(suite: Suite, source: YamlSource) -> None:
    """No plan may take minutes only to be found too large."""
    listed = len(suite.methods) + len(suite.candidates)
    if len(suite.models) * listed > MOST_COMBINATIONS:
        problem = f"{len(suite.models)} models by {listed} methods are more than a suite may have"
        raise source.error(("methods",), f"{problem}, {MOST_COMBINATIONS}: split it")
    for section in ("corpora", "perplexity", "tasks"):
        if len(getattr(suite, section)) > MOST_NAMES:
            problem = f"more than {MOST_NAMES} of `{section}` in one suite: split it"
            raise source.error((section,), problem)


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
    for section, listed in (("methods", suite.methods), ("candidates", suite.candidates)):
        for name, method in listed.items():
            _no_repeats(source, (section, name, "seeds"), method.seeds or ())
            corpus = corpus_of(name)
            if corpus and corpus not in suite.corpora:
                raise source.unknown((section, name), "corpus", corpus, suite.corpora)
            if corpus and method.corpora is not None:
                problem = f"{name!r} is calibrated on {corpus!r}: it takes no `corpora`"
                raise source.error((section, name, "corpora"), problem)
            for model in method.models:
                if model not in suite.models:
                    place = (section, name, "models", model)
                    raise source.unknown(place, "model", model, suite.models)
    _refuse_shared_names(source)
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
    if WEIGHTS_ONLY in suite.corpora:
        problem = f"{WEIGHTS_ONLY!r} is what methods that look at no text are given: rename it"
        raise source.error(("corpora", WEIGHTS_ONLY), problem)
    if "none" in suite.methods:
        raise source.error(("methods", "none"), "'none' is the unpruned model, always included")


def _no_repeats(source: YamlSource, place: tuple[Any, ...], values: Sequence[Any]) -> None:
    seen = set()
    for index, value in enumerate(values):
        if value in seen:
            raise source.error((*place, index), f"{value!r} is listed twice")
        seen.add(value)
