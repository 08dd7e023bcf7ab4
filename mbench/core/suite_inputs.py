"""The schema of what a suite takes in: models, texts, calibration corpora."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from mbench.core.chat import ChatSpec
from mbench.core.suite_values import (
    AttentionName,
    Count,
    DtypeName,
    ExpertsKept,
    HubId,
    Label,
    LocalPath,
    Name,
    Revision,
    Seed,
    Strict,
    Tokens,
    Words,
)

MOST_CALIBRATION_TOKENS = 2**28
"""Of one corpus: their ids alone take 2 GiB."""


class Expected(Strict):
    """Facts of a model as its publisher states them; another model under its name is refused."""

    layers: Annotated[int, Field(ge=1, le=10_000)]
    experts: Annotated[int, Field(ge=1, le=100_000)]
    top_k: Count
    parameters: Count | None = None
    """Of the whole model; with `expert_parameters`, lets it be planned without its files."""
    expert_parameters: Count | None = None
    """Of one routed expert in one layer."""


class ModelSpec(Strict):
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
    same_as: Name | None = None
    """Another model of the suite of which this is a stored form, e.g. in FP8: the board by bytes
    sets them side by side."""
    experts: ExpertsKept = "computed"
    """How the experts of a checkpoint in FP8 lie in memory. `computed`: in `dtype`. `stored`: as in
    the files, each turned into numbers whenever it is called: half the memory, more time."""

    @model_validator(mode="after")
    def _one_source(self) -> ModelSpec:
        _exactly_one(self, "hub", "path", "plugin")
        return _only_beside(self, "hub", "revision")


class TextSource(Strict):
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
    messages: Label | None = None
    """Field of a record that holds a conversation, in place of `field`; only of a calibration
    corpus, which puts it into the model's chat template. A list of `{role: ..., content: ...}`, or
    as ShareGPT has it `{from: human, gpt or system, value: ...}`. A content is a string or a list
    of parts `{type: text, text: ...}`; anything else is refused with its row."""
    nulls: Literal["refuse", "skip"] = "refuse"
    """`skip`: leave out records in which the field is null, and count them."""

    @model_validator(mode="after")
    def _one_source(self) -> TextSource:
        _exactly_one(self, "hub", "files", "plugin")
        if self.files is not None and "split" in self.model_fields_set:
            raise ValueError("split means nothing beside files")
        if self.messages is not None and "field" in self.model_fields_set:
            raise ValueError("give field, of texts, or messages, of conversations")
        if self.messages is not None and self.plugin is not None:
            raise ValueError("messages means nothing beside plugin, which gives texts")
        return _only_beside(self, "hub", "revision", "subset", "data_files")


class CorpusSpec(Strict):
    """A calibration corpus: so many token sequences of such a length.

    Of conversations, each is put into the model's chat template and tokenised by itself, as
    `tokenizer.apply_chat_template` of transformers does: a special token that somebody has typed
    into a message is read as that special token, and `mbench check` counts them.
    """

    source: TextSource
    sequences: Count
    length: Tokens
    """Tokens of a sequence; at most 2^28 in all."""
    packing: Literal["concatenate", "contiguous", "document"] = "concatenate"
    """`concatenate`: documents in shuffled order, joined and cut. `contiguous`: documents in their
    own order, joined and cut, and sequences drawn from them; for datasets with one row per line.
    `document`: the first `length` tokens of one document a sequence, padded. A conversation is a
    document."""
    join: Words = "\n\n"
    """Between two documents. Between conversations nothing unless it is given: a template ends each
    in its own way."""
    seed: Seed = 0
    """Shuffles the documents, or draws the sequences."""
    bos: Literal["document", "window", "none"] | None = None
    """Where the tokenizer's BOS token stands. `window`: first in every sequence, as one of its
    `length` tokens. `document`: before every document that is not blank, as in training on joined
    documents; a sequence that starts inside one has none. `none`: nowhere. Omitted: `window` if
    the tokenizer by default begins a text with BOS, for then the model was trained to read it
    first, else `none`. No other special tokens are added. Conversations: omitted, BOS stands where
    the template prints it, and nowhere else; `window` and `document` set it where it does not stand
    already, and `none` is refused of a template that prints it."""
    chat: ChatSpec | None = None
    """How conversations (`messages` in the source) are put into the model's chat template; omitted:
    as the suite's `chat`, or the template alone if the suite has none. `system` stands first in
    conversations that do not begin with a system message."""

    @field_validator("chat")
    @classmethod
    def _of_conversations(cls, chat: ChatSpec | None, info: ValidationInfo) -> ChatSpec | None:
        source = info.data.get("source")
        if chat is None or source is None:
            return chat
        if source.messages is None:
            raise ValueError("chat means nothing without messages in the source")
        if not chat.template:
            raise ValueError("conversations are put into a template: `template: false` has none")
        if chat.multiturn is not None:
            raise ValueError("multiturn is of few-shot tasks: conversations are turns already")
        return chat

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


class MixSpec(Strict):
    """A calibration corpus that is mixed of others.

    Each part is cut by itself as its own corpus says, but for the number of sequences. Then the
    sequences of all parts are interleaved evenly: the first ones, and every group of neighbours
    that is resampled, hold the parts in the proportion of the whole, of two parts to within one
    sequence, of more to within two or three.
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
