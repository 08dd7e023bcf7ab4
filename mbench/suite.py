"""Suite files: YAML into frozen models, or one line saying where it is wrong and what is valid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mbench.interfaces import RouterMode
from mbench.yaml_source import YamlSource, describe_error

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
Count = Annotated[int, Field(ge=1)]
RetainRatio = Annotated[float, Field(gt=0, lt=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Expected(_Strict):
    """Facts of a model as its publisher states them; another model under its name is refused."""

    layers: Count
    experts: Count
    top_k: Count


class ModelSpec(_Strict):
    """Where a model comes from: a hub id, a local directory, or a plugin that ships one."""

    hub: str | None = None
    path: str | None = None
    plugin: str | None = None
    revision: str | None = None
    """Commit of the hub repository."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    expect: Expected | None = None

    @model_validator(mode="after")
    def _one_source(self) -> ModelSpec:
        return _exactly_one(self, "hub", "path", "plugin")


class TextSource(_Strict):
    """Documents from a hub dataset, from local files, or from a plugin."""

    hub: str | None = None
    files: tuple[str, ...] | None = None
    """Text files (one document each) or JSON-lines files; relative to the working directory."""
    plugin: str | None = None
    split: str = "train"
    subset: str | None = None
    data_files: str | None = None
    revision: str | None = None
    field: str = "text"

    @model_validator(mode="after")
    def _one_source(self) -> TextSource:
        return _exactly_one(self, "hub", "files", "plugin")


class CorpusSpec(_Strict):
    """A calibration corpus: so many token sequences of such a length."""

    source: TextSource
    sequences: Count
    length: Count
    packing: Literal["concatenate", "contiguous", "document"] = "concatenate"
    """`concatenate`: documents in shuffled order, joined and cut. `contiguous`: documents in their
    own order, joined and cut, and sequences drawn from them; for data sets with a row a line.
    `document`: the first `length` tokens of one document a sequence, padded."""
    join: str = "\n\n"
    seed: int = 0
    """Shuffles the documents, or draws the sequences."""


class PerplexityTask(_Strict):
    """Perplexity on a held-out text."""

    source: TextSource
    protocol: Literal["sliding", "gptq", "document"] = "sliding"
    window: Annotated[int, Field(ge=2)] = 2048
    stride: Count | None = None
    join: str = "\n\n"
    max_windows: Count | None = None

    @model_validator(mode="after")
    def _stride_fits(self) -> PerplexityTask:
        if self.protocol == "sliding" and self.stride is None:
            raise ValueError("protocol 'sliding' needs a stride")
        if self.protocol != "sliding" and self.stride is not None:
            raise ValueError(f"protocol {self.protocol!r} takes no stride")
        if self.stride is not None and self.stride >= self.window:
            raise ValueError(f"stride {self.stride} must be less than the window {self.window}")
        return self


class LmEvalTask(_Strict):
    """A task or group of lm-eval."""

    task: str | None = None
    """lm-eval's name where it differs from the suite's."""
    directory: str | None = None
    """Folder of local task files; relative to the working directory."""
    metric: str = "acc"
    """The metric that ranks, enters the average, and is shown first; all are kept."""
    limit: Count | None = None
    num_fewshot: int | None = Field(default=None, ge=0)


class ComponentSpec(BaseModel):
    """A component's name (omitted: the method's own) and its parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def values(self) -> dict[str, Any]:
        """The parameters as written."""
        return dict(self.model_extra or {})


class Parts(_Strict):
    """Parts of a method that differ from its ready-made triple."""

    scorer: ComponentSpec | None = None
    selector: ComponentSpec | None = None
    builder: ComponentSpec | None = None


class MethodSpec(Parts):
    """A method of the suite; its key is its name in the results."""

    use: str | None = None
    """The ready-made method to start from; omitted: the one of the same name."""
    corpora: tuple[str, ...] | None = None
    """Calibration corpora, in order; omitted: the suite's `calibration`."""
    candidate: str | None = None
    seeds: tuple[int, ...] | None = None
    models: Mapping[str, Parts] = Field(default_factory=dict)
    """Parts that differ for one model, e.g. a protection budget for its expert count."""


class Average(_Strict):
    """Unweighted mean of some tasks' declared metrics."""

    name: str = "Common Avg"
    tasks: tuple[str, ...]


class Suite(_Strict):
    """Everything a run depends on."""

    name: Name
    title: str = ""
    description: str = ""
    models: Mapping[Name, ModelSpec] = Field(min_length=1)
    retain: tuple[RetainRatio, ...] = Field(min_length=1)
    router: RouterMode = "sliced"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 42)
    """For methods that draw at random and name no seeds of their own."""
    corpora: Mapping[Name, CorpusSpec] = Field(default_factory=dict)
    calibration: tuple[str, ...] = ()
    """The corpora, in order, of methods that name none of their own."""
    methods: Mapping[Name, MethodSpec] = Field(min_length=1)
    candidates: Mapping[Name, MethodSpec] = Field(default_factory=dict)
    """Methods that others build upon and that are not evaluated themselves."""
    perplexity: Mapping[Name, PerplexityTask] = Field(default_factory=dict)
    tasks: Mapping[Name, LmEvalTask] = Field(default_factory=dict)
    average: Average | None = None
    batch_tokens: Count = 8192
    """Tokens in one forward call."""
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that evaluate masks side by side, each on one thread, where there is no GPU: for
    models so small that one operation cannot keep several cores busy."""


def _exactly_one(model: Any, *fields: str) -> Any:
    given = [name for name in fields if getattr(model, name) is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(fields)}; got {len(given)}")
    return model


def load_suite(
    path: Path,
    *,
    set_values: Sequence[str] = (),
    models: Sequence[str] = (),
    retain: Sequence[float] = (),
    methods: Sequence[str] = (),
    limit: int | None = None,
) -> tuple[Suite, YamlSource]:
    """Read and validate a suite file, narrowed or redirected by the command line.

    Raises `SuiteError`, one line `file:line:column: what is wrong (valid choices)`. Names of
    methods that the file does not list are left for the plan, which knows the plugins.
    """
    source = YamlSource.read(path)
    for assignment in set_values:
        source.assign(assignment)
    for redirection in models:
        _redirect(source, redirection)
    chosen = [redirection for redirection in models if "=" not in redirection]
    listed = source.data.get("models")
    for name in [name for name in listed if chosen] if isinstance(listed, dict) else ():
        if name not in chosen:
            del listed[name]
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


def _redirect(source: YamlSource, redirection: str) -> None:
    name, separator, target = redirection.partition("=")
    listed = source.data.get("models")
    listed = listed if isinstance(listed, dict) else {}
    if separator and not target:
        raise source.error((), f"--model takes NAME or NAME=PATH_OR_ID, got {redirection!r}")
    if name not in listed:
        raise source.unknown(("models",), "model", name, listed, "--model")
    if not separator:
        return
    own = listed[name] if isinstance(listed[name], dict) else {}
    kept = {key: own[key] for key in ("dtype",) if key in own}
    looks_local = Path(target).exists() or target.startswith((".", "/", "~"))
    place = {"path": target} if looks_local else {"hub": target}
    source.replace(("models", name), kept | place, f"--model {redirection}")


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
        raise source.error((), f"--limit takes a number of items from 1, got {limit}")
    for section, key in (("tasks", "limit"), ("perplexity", "max_windows")):
        listed = source.data.get(section)
        for name, value in listed.items() if isinstance(listed, dict) else ():
            if value is None:
                listed[name] = {}
            elif not isinstance(value, dict):
                continue
            own = source.data[section][name].get(key)
            if not isinstance(own, int) or own > limit:
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
