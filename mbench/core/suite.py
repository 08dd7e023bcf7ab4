"""The schema of suite files: their keys, types and meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from mbench.core.chat import ChatSpec
from mbench.core.interfaces import RouterMode
from mbench.core.suite_inputs import AnyCorpus, ModelSpec, TextSource
from mbench.core.suite_values import (
    Count,
    Label,
    LocalPath,
    MethodName,
    Name,
    RetainRatio,
    Revision,
    Seeds,
    Strict,
    Tokens,
    Words,
)


class ExpectedWork(Strict):
    """What one mask costs on a task, for plans made before the task was ever built."""

    items: Count
    """Items, or windows of a text; another number is refused when the task is built."""
    tokens: Count
    """Forward tokens, roughly: they depend on the tokenizer."""
    generated: Annotated[int, Field(ge=0)] = 0
    """Of these, tokens that are generated one after another, at most."""


class PerplexityTask(Strict):
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

    @field_validator("source")
    @classmethod
    def _of_texts(cls, source: TextSource) -> TextSource:
        if source.messages is not None:
            raise ValueError("perplexity is of texts: messages are for calibration corpora")
        return source

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


class LmEvalTask(Strict):
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
    """Most tokens that are generated per item; omitted: the task's own limit, and 256 where it has
    none, as `mbench check` says."""
    generation: Mapping[Label, bool | int | float | str] = Field(default_factory=dict)
    """How answers are generated where not as the task file says (lm-eval's `gen_kwargs`), e.g.
    `{do_sample: true, temperature: 0.6, top_p: 0.95}`. What generation_config.json asks for is
    ignored: write it here."""
    seed: int | None = Field(default=None, ge=0)
    """For answers that are drawn (`do_sample: true` in the task file or in `generation`); omitted:
    0."""
    trust_code: bool = False
    """Whether functions that local task files refer to (`!function`) may run, with all they can do
    on this machine; those of lm-eval and of plugins are installed and always may."""
    publish_items: bool = True
    """Whether a report has the texts of its items beside it, so that readers see on which two
    methods disagree; `false` where a licence forbids copies."""
    chat: ChatSpec | None = None
    """How its prompts are put into the model's chat template; omitted: as the suite's `chat`."""
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


class Parts(Strict):
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
    tasks: Annotated[tuple[Name, ...] | None, Field(min_length=1)] = None
    """The tasks that its masks are evaluated on, of `tasks` and `perplexity`; omitted: all. A
    method without some task of the `average` has no average, and no rank by it."""
    checkpoint: LocalPath | None = None
    """A pruned checkpoint, as a directory or a hub id, instead of parts: it is evaluated as it is,
    at the one budget that it has."""
    revision: Revision | None = None
    """Commit, branch or tag of the hub repository of `checkpoint`."""
    model: Label | None = None
    """The model that `checkpoint` was pruned from; omitted: the suite's only one."""
    models: Mapping[str, Parts] = Field(default_factory=dict)
    """Parts that differ for one model, e.g. a protection budget for its expert count."""

    @model_validator(mode="after")
    def _checkpoint_or_parts(self) -> MethodSpec:
        given = self.model_fields_set - {"checkpoint", "revision", "model"}
        if self.checkpoint is not None and given:
            raise ValueError(f"{min(given)} means nothing beside checkpoint, which is no parts")
        for name in ("revision", "model"):
            if self.checkpoint is None and getattr(self, name) is not None:
                raise ValueError(f"{name} means nothing without checkpoint")
        return self


class CrossSpec(Strict):
    """Methods by calibration corpora: each method is run on each corpus, as `METHOD@CORPUS`.

    The page compares what the choice of the method changes with what that of the text does.
    """

    methods: Annotated[tuple[Name, ...], Field(min_length=1)]
    """With the parts that the suite's `methods` or `candidates` give them, or as plugins offer
    them. What such a method builds upon is calibrated on the same corpus."""
    corpora: Annotated[tuple[Name, ...], Field(min_length=1)]


class Average(Strict):
    """Unweighted mean of some tasks' declared metrics."""

    name: Label = "Common Avg"
    tasks: tuple[str, ...] = Field(min_length=1)


class EfficiencySpec(Strict):
    """What pruning saves, measured on physically pruned models that generate a batch."""

    prompt_tokens: Tokens | None = None
    """Random tokens of a prompt; omitted: 512, or what the model's context leaves of it."""
    new_tokens: Tokens = 64
    """Tokens generated after each prompt."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 1
    """Prompts in the batch."""
    repetitions: Annotated[int, Field(ge=3, le=1000)] = 5
    """How often it is generated, after once to warm up."""


class Suite(Strict):
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
    chat: ChatSpec | None = None
    """How prompts of `tasks` and conversations of `corpora` are put into the model's chat template;
    omitted: prompts not at all, conversations with nothing beside them. A task or corpus may have
    its own."""
    perplexity: Mapping[Name, PerplexityTask] = Field(default_factory=dict)
    tasks: Mapping[Name, LmEvalTask] = Field(default_factory=dict)
    average: Average | None = None
    """What methods are ranked by; omitted: the mean log perplexity."""
    efficiency: EfficiencySpec | None = None
    """If given, size, memory and speed of a physically pruned model are measured at each budget."""
    batch_tokens: Tokens | Literal["auto"] = "auto"
    """Tokens in one forward call, padding included. `auto`: on a GPU as many as its free memory has
    room for, measured on the first batches; elsewhere 8192. Half as many wherever memory runs out.
    It changes figures by no more than rounding and enters no key."""
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that evaluate masks side by side, each on one thread, where there is no GPU: for
    models so small that one operation cannot keep several cores busy."""

    def chat_for(self, own: ChatSpec | None) -> ChatSpec | None:
        """The chat of a task or corpus that has `own`, which replaces the suite's; None: none."""
        chat = self.chat if own is None else own
        return chat if chat is not None and chat.template else None
