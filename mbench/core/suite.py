"""The schema of suite files: their keys, types and meaning."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mbench.core.interfaces import RouterMode

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
MethodName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9][A-Za-z0-9._-]*)?$", max_length=160),
]
"""Also `METHOD@CORPUS`: the method, calibrated on that corpus alone."""


def _of_a_user(path: str) -> str:
    if os.path.expanduser(path).startswith("~"):
        raise ValueError(f"{path.partition('/')[0]} is no user's home; a file of that name is ./~…")
    return path


MOST_SEEDS = 1000


def _listed(seeds: Any) -> Any:
    """So many seeds, counted from 0, where a number stands for a list."""
    number = isinstance(seeds, int) and not isinstance(seeds, bool)
    if number and 1 <= seeds <= MOST_SEEDS:
        return tuple(range(seeds))
    if number or not isinstance(seeds, list | tuple):
        raise ValueError(
            f"give a list of seeds, e.g. [0, 1, 42], or how many of 0, 1, 2, ... from 1 to"
            f" {MOST_SEEDS}"
        )
    return tuple(seeds)  # in JSON a list, which is no tuple


Words = Annotated[str, Field(max_length=10_000)]
Label = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=1, le=10**15)]
Tokens = Annotated[int, Field(ge=1, le=2**24)]
"""Of one sequence: no model has more positions."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Seeds = Annotated[tuple[Seed, ...], Field(max_length=MOST_SEEDS), BeforeValidator(_listed)]
HubId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$", max_length=200)]
Revision = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][\w.+-]*(/[A-Za-z0-9][\w.+-]*)*$", max_length=200)
]
LocalPath = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_of_a_user)]
MOST_CALIBRATION_TOKENS = 2**28
"""Of one corpus: their ids alone take 2 GiB."""
DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
AttentionName = Literal["auto", "sdpa", "eager"]
RetainRatio = Annotated[float, Field(gt=0, lt=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class Expected(_Strict):
    """Facts of a model as its publisher states them; another model under its name is refused."""

    layers: Annotated[int, Field(ge=1, le=10_000)]
    experts: Annotated[int, Field(ge=1, le=100_000)]
    top_k: Count
    parameters: Count | None = None
    """Of the whole model; with `expert_parameters`, lets it be planned without its files."""
    expert_parameters: Count | None = None
    """Of one routed expert in one layer."""


class ExpectedWork(_Strict):
    """What one mask costs on a task, for plans made before the task was ever built."""

    items: Count
    """Items, or windows of a text; another number is refused when the task is built."""
    tokens: Count
    """Forward tokens, roughly: they depend on the tokenizer."""


class ModelSpec(_Strict):
    """Where a model comes from: a hub id, a local directory, or a plugin that ships one."""

    hub: HubId | None = None
    """Id of a hub repository; exactly one of `hub`, `path` and `plugin` is given."""
    path: LocalPath | None = None
    """Local directory."""
    plugin: Label | None = None
    """Name of a model that a plugin ships."""
    revision: Revision | None = None
    """Commit, branch or tag of the hub repository; not beside `path` or `plugin`, where it would
    mean nothing."""
    dtype: DtypeName = "auto"
    """`auto`: as the checkpoint is stored."""
    attention: AttentionName = "auto"
    """How attention is computed; `auto`: `sdpa` where the model's class has it, else `eager`. What
    config.json asks for is ignored, and `mbench check` says so."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run, with all it can do on this machine."""
    expect: Expected | None = None

    @model_validator(mode="after")
    def _one_source(self) -> ModelSpec:
        _exactly_one(self, "hub", "path", "plugin")
        return _only_beside(self, "hub", "revision")


class TextSource(_Strict):
    """Documents from a hub dataset, from local files, or from a plugin."""

    hub: HubId | None = None
    """Id of a hub dataset; exactly one of `hub`, `files` and `plugin` is given."""
    files: Annotated[tuple[LocalPath, ...], Field(min_length=1)] | None = None
    """Plain text (one document each), JSON lines, a JSON list, CSV, TSV, parquet or Arrow, by name
    and content, all but the last two also compressed (gzip, zstd, xz, bzip2); relative to the
    working directory."""
    plugin: Label | None = None
    """Name of a corpus that a plugin ships."""
    split: Label = "train"
    """Split of the dataset, or of the plugin's corpus."""
    subset: Label | None = None
    """Configuration of the dataset."""
    data_files: LocalPath | None = None
    """Only these files of the dataset."""
    revision: Revision | None = None
    """Commit, branch or tag of the dataset. It, `subset` and `data_files` stand only beside
    `hub`."""
    field: Label = "text"
    """Field of a record that holds the text. A record without it, or where it is no string, is
    refused."""
    nulls: Literal["refuse", "skip"] = "refuse"
    """`skip`: leave out records in which the field is null, and count them."""

    @model_validator(mode="after")
    def _one_source(self) -> TextSource:
        _exactly_one(self, "hub", "files", "plugin")
        if self.files is not None and "split" in self.model_fields_set:
            raise ValueError("split means nothing beside files")
        return _only_beside(self, "hub", "revision", "subset", "data_files")


class CorpusSpec(_Strict):
    """A calibration corpus: so many token sequences of such a length."""

    source: TextSource
    sequences: Count
    length: Tokens
    """Tokens of a sequence; at most 2^28 in all."""
    packing: Literal["concatenate", "contiguous", "document"] = "concatenate"
    """`concatenate`: documents in shuffled order, joined and cut. `contiguous`: documents in their
    own order, joined and cut, and sequences drawn from them; for datasets with one row per line.
    `document`: the first `length` tokens of one document a sequence, padded."""
    join: Words = "\n\n"
    """Between two documents."""
    seed: Seed = 0
    """Shuffles the documents, or draws the sequences."""
    bos: Literal["document", "window", "none"] | None = None
    """Where the tokenizer's BOS token stands. `window`: first in every sequence, as one of its
    `length` tokens. `document`: before every document that is not blank, as in training on joined
    documents; a sequence that starts inside one has none. `none`: nowhere. Omitted: `window` if
    the tokenizer by default begins a text with BOS, for then the model was trained to read it
    first, else `none`. No other special tokens are added."""

    @field_validator("length")
    @classmethod
    def _fits_into_memory(cls, length: int, info: ValidationInfo) -> int:
        sequences = info.data.get("sequences", 0)
        if sequences * length > MOST_CALIBRATION_TOKENS:
            raise ValueError(
                f"{sequences} sequences of {length} tokens are more than the"
                f" {MOST_CALIBRATION_TOKENS} that are kept in memory"
            )
        return length


Share = Annotated[float, Field(gt=0, le=10**15, allow_inf_nan=False)]


class MixSpec(_Strict):
    """A calibration corpus that is mixed of others.

    Each part is cut by itself as its own corpus says, but for the number of sequences. Then the
    sequences of all parts are interleaved evenly: the first ones, and every group of neighbours
    that is resampled, hold the parts in the proportion of the whole, as nearly as whole sequences
    can.
    """

    mix: Annotated[Mapping[Name, Share], Field(min_length=1, max_length=100)]
    """Corpora of the suite, none of them a mix, each with its number of sequences; beside
    `sequences` each with its weight."""
    sequences: Count | None = None
    """Sequences in all, shared out by the weights (largest remainder); omitted: the numbers in
    `mix` are counts."""
    length: Tokens | None = None
    """Tokens of a sequence in every part; omitted: as the parts have it, which must agree."""


def _kind_of_corpus(corpus: Any) -> str:
    mixed = "mix" in corpus if isinstance(corpus, Mapping) else isinstance(corpus, MixSpec)
    return "[mix]" if mixed else "[text]"


AnyCorpus = Annotated[
    Annotated[CorpusSpec, Tag("[text]")] | Annotated[MixSpec, Tag("[mix]")],
    Discriminator(_kind_of_corpus),
]
"""A calibration corpus: cut from one text, or mixed."""


class PerplexityTask(_Strict):
    """Perplexity on a held-out text, by one of three protocols that give different figures.

    - `sliding`: the documents joined by `join`; windows of `window` tokens start every `stride`
      tokens, and each scores only the tokens that the one before it did not reach. The last window
      may be shorter.
    - `gptq`: the documents joined by `join`; disjoint windows, in each of which the first token is
      context only; a last incomplete window is left out.
    - `document`: every document separately, in disjoint windows of `window` predictions, each after
      one token of context; documents of a single token have nothing to score.

    Where nothing stands before the first token of a window, that token is context only. BOS is
    never predicted, and no other special tokens are added.
    """

    source: TextSource
    protocol: Literal["sliding", "gptq", "document"] = "sliding"
    """One of the three above."""
    window: Annotated[int, Field(ge=2, le=2**24)] = 2048
    """Tokens."""
    stride: Annotated[Count | None, Field(validate_default=True)] = None
    """Tokens from one window to the next; only for `sliding`, and less than `window`."""
    join: Words = "\n\n"
    """Between two documents."""
    bos: Literal["document", "window", "text", "none"] | None = None
    """Where the tokenizer's BOS token stands. `window`: before the first token of every window, as
    one of the `window` tokens (in `document`, as the one token of context). `document`: before
    every document that is not blank. `text`: once, before the joined text (in `document`, before
    each); this is what tokenising it with the tokenizer's defaults gives, as the published figures
    of `gptq` have it. `none`: nowhere. Omitted: if the tokenizer by default begins a text with BOS,
    `text` for `gptq` and `window` for the others, for then the model was trained to read it first;
    else `none`."""
    max_windows: Count | None = None
    """The first so many windows; omitted: all."""
    windows_per_document: Count | None = None
    """The first so many windows of every document, so that a few long ones do not decide a figure;
    only for `document`; omitted: all."""
    documents: Literal["records", "wikitext", "whole"] | None = None
    """What is independent of each other, so that errors are taken over it. `records`: every record
    of the source, or a whole file of plain text. `wikitext`: articles, which begin with a line
    ` = Title = `, in whatever records they come. `whole`: the text is one document, or it is not
    known where its documents begin; then its figures have no error and nothing is tested. Omitted:
    `wikitext` where the text has such headings, else `records`."""
    expect_tokens: Count | None = None
    """Roughly the forward tokens of one mask, for plans made before the text was read."""

    @field_validator("stride")
    @classmethod
    def _stride_fits(cls, stride: int | None, info: ValidationInfo) -> int | None:
        protocol, window = info.data.get("protocol"), info.data.get("window")
        if protocol is None or window is None:
            return stride  # the invalid one has an error already
        if protocol != "sliding" and stride is not None:
            raise ValueError(f"protocol {protocol!r} takes no stride")
        # With a stride of a whole window, the first token of each would have no context.
        if protocol == "sliding" and (stride is None or stride >= window):
            raise ValueError(
                f"protocol 'sliding' needs a stride from 1 to {window - 1}, less than the window"
            )
        return stride

    @field_validator("windows_per_document")
    @classmethod
    def _by_document(cls, windows: int | None, info: ValidationInfo) -> int | None:
        protocol = info.data.get("protocol")
        if windows is not None and protocol not in (None, "document"):
            raise ValueError(f"protocol {protocol!r} joins documents: only 'document' takes it")
        return windows


class LmEvalTask(_Strict):
    """A task, group or tag of lm-eval."""

    task: Label | None = None
    """lm-eval's name where it differs from the suite's."""
    directory: LocalPath | None = None
    """Folder of local task files; relative to the working directory. Its tasks go before lm-eval's
    own of the same name."""
    metric: Label = "acc"
    """The metric that ranks, enters the average, and is shown first; all are kept."""
    limit: Count | None = None
    """The first so many items of every task; omitted: all."""
    num_fewshot: int | None = Field(default=None, ge=0, le=10_000)
    """Few-shot examples in the prompt; omitted: the task's own number."""
    max_gen_toks: Tokens | None = None
    """Most tokens that are generated per item; omitted: the task's own limit."""
    seed: int | None = Field(default=None, ge=0)
    """For answers that are drawn (`do_sample: true` in the task file); omitted: 0."""
    trust_code: bool = False
    """Whether functions that local task files refer to (`!function`) may run, with all they can do
    on this machine; those of lm-eval and of plugins are installed and always may."""
    publish_items: bool = True
    """Whether a report has the texts of its items beside it, so that readers see on which two
    methods disagree; `false` where a licence forbids copies."""
    expect: ExpectedWork | None = None

    def lm_eval_name(self, name: str) -> str:
        """lm-eval's name of the task that the suite calls `name`."""
        return self.task or name


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

    use: Label | None = None
    """The ready-made method to start from; omitted: the one of the same name, up to an `@`."""
    corpora: tuple[str, ...] | None = None
    """Calibration corpora, in order; omitted: the one after an `@` in its name, else the suite's
    `calibration`."""
    candidate: Label | None = None
    """Method whose mask the builder starts from; omitted: the ready-made method's."""
    seeds: Seeds | None = None
    """Of a method that draws at random, listed or their number; omitted: the suite's."""
    router: RouterMode | None = None
    """The router mode of its masked models; omitted: the suite's. A candidate has its own."""
    models: Mapping[str, Parts] = Field(default_factory=dict)
    """Parts that differ for one model, e.g. a protection budget for its expert count."""


class CrossSpec(_Strict):
    """Methods by calibration corpora: each method is run on each corpus, as `METHOD@CORPUS`.

    The page compares what the choice of the method changes with what that of the text does.
    """

    methods: Annotated[tuple[Name, ...], Field(min_length=1)]
    """With the parts that the suite's `methods` or `candidates` give them, or as plugins offer
    them. What such a method builds upon is calibrated on the same corpus."""
    corpora: Annotated[tuple[Name, ...], Field(min_length=1)]


class Average(_Strict):
    """Unweighted mean of some tasks' declared metrics."""

    name: Label = "Common Avg"
    tasks: tuple[str, ...] = Field(min_length=1)


class EfficiencySpec(_Strict):
    """What pruning saves, measured on physically pruned models that generate a batch."""

    prompt_tokens: Tokens | None = None
    """Random tokens of a prompt; omitted: 512, or what the model's context leaves of it."""
    new_tokens: Tokens = 64
    """Tokens generated after each prompt."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 1
    """Prompts in the batch."""
    repetitions: Annotated[int, Field(ge=3, le=1000)] = 5
    """How often it is generated, after once to warm up."""


class Suite(_Strict):
    """Everything a run depends on."""

    name: Name
    """Names the report's folder."""
    title: Words = ""
    description: Words = ""
    models: Mapping[Name, ModelSpec] = Field(min_length=1)
    retain: tuple[RetainRatio, ...] = Field(min_length=1)
    """Retain ratios between 0 and 1; floor(ratio x experts) are kept in every layer."""
    router: RouterMode = "sliced"
    """`sliced`: the router sees retained experts only, as after physical removal. `preserved`:
    retained experts keep the gate values of the full model."""
    seeds: Seeds = (0, 1, 2, 3, 4, 42)
    """For methods that draw at random and name no seeds of their own. A number n stands for the
    seeds 0 to n - 1: `seeds: 20` draws 20 masks at each budget."""
    resamples: Annotated[int, Field(ge=0, le=1000)] = 10
    """How often each mask is made again from calibration sequences drawn anew with replacement, to
    tell how many of its experts stay; 0: not at all."""
    corpora: Mapping[Name, AnyCorpus] = Field(default_factory=dict)
    calibration: tuple[str, ...] = ()
    """The corpora, in order, of methods that list none themselves."""
    methods: Mapping[MethodName, MethodSpec] = Field(min_length=1)
    """By name. `METHOD@CORPUS` is METHOD, calibrated on that corpus alone, and so is what it builds
    upon; with no keys of its own it has those of METHOD in the suite."""
    candidates: Mapping[MethodName, MethodSpec] = Field(default_factory=dict)
    """Methods that others build upon and that are not evaluated themselves."""
    cross: CrossSpec | None = None
    """Further methods, each on each of some corpora."""
    perplexity: Mapping[Name, PerplexityTask] = Field(default_factory=dict)
    tasks: Mapping[Name, LmEvalTask] = Field(default_factory=dict)
    average: Average | None = None
    """What methods are ranked by; omitted: the mean log perplexity."""
    efficiency: EfficiencySpec | None = None
    """If given, size, memory and speed of a physically pruned model are measured at each budget."""
    batch_tokens: Tokens = 8192
    """Tokens in one forward call."""
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that evaluate masks side by side, each on one thread, where there is no GPU: for
    models so small that one operation cannot keep several cores busy."""


_Source = TypeVar("_Source", ModelSpec, TextSource)


def _exactly_one(model: _Source, *fields: str) -> _Source:
    given = [name for name in fields if getattr(model, name) is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(fields)}; got {len(given)}")
    return model


def _only_beside(model: _Source, source: str, *fields: str) -> _Source:
    if getattr(model, source) is None:
        for name in fields:
            if getattr(model, name) is not None:
                raise ValueError(f"{name} means nothing without {source}")
    return model
