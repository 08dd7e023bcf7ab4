"""Where results came from: the settings that decided their figures, and the runs that gave them.

A run records it once, `results.json` keeps it, and reports, merges and exports read its fields.
What tasks, texts and plugins state in a form of their own stays `object`: it is compared and shown,
and nothing follows from what is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mbench.core.interfaces import RouterMode
from mbench.core.model_facts import ModelFacts, StoredSize
from mbench.core.run_record import CorpusProfile, RunRecord


@dataclass(frozen=True)
class ComponentSettings:
    """A scorer, selector or mask builder as a method uses it."""

    name: str
    parameters: Mapping[str, object]
    """All of them, defaults included, as plain JSON values."""

    @property
    def label(self) -> str:
        """Name and parameters, e.g. `reap (variant mean)`."""
        listed = ", ".join(f"{key} {value}" for key, value in self.parameters.items())
        return self.name + (f" ({listed})" if listed else "")


@dataclass(frozen=True)
class MethodSettings:
    """All that decides a method's masks but the seed."""

    scorer: ComponentSettings | None
    """None for methods that look at no corpus."""
    selector: ComponentSettings | None
    """It and `builder` are None for a published checkpoint alone."""
    builder: ComponentSettings | None
    corpora: tuple[str, ...]
    """Calibration corpora, in order."""
    candidate: str | None
    """The method whose mask the builder starts from."""
    router: RouterMode
    """How its masked models route, which may be another mode than the suite's."""
    checkpoint: str | None = None
    """Directory or hub id, and revision, of a published checkpoint, which has no parts."""
    checkpoint_content: str | None = None
    """What identifies its files, wherever they are."""

    @property
    def parts(self) -> dict[str, ComponentSettings]:
        """The components by their kind."""
        parts = {"scorer": self.scorer, "selector": self.selector, "builder": self.builder}
        return {kind: part for kind, part in parts.items() if part is not None}


@dataclass(frozen=True)
class CorpusSettings:
    """A calibration corpus: which documents, and how sequences are cut from them."""

    text: Mapping[str, object]
    """What identifies the documents, wherever they came from (see `Text.identity`)."""
    sequences: int
    length: int
    """Tokens of a sequence."""
    packing: str
    join: str
    seed: int
    bos: str | None = None
    """Where BOS stands; None: as the model's tokenizer has it by default, or the chat template."""
    chat: Mapping[str, object] | None = None
    """How conversations are put into the chat template (see `ChatSpec`); None: they are texts."""


@dataclass(frozen=True)
class MixSettings:
    """A calibration corpus that is mixed of others, whose sequences are interleaved evenly."""

    parts: Mapping[str, CorpusSettings]
    """Corpus -> how it was cut for the mix, in order."""

    @property
    def label(self) -> str:
        """E.g. `32 bible + 16 wiki`."""
        return " + ".join(f"{part.sequences} {name}" for name, part in self.parts.items())


@dataclass(frozen=True)
class TaskSettings:
    """A task or perplexity text: which items, and how they are scored."""

    text: Mapping[str, object] | None
    """What identifies the documents of a perplexity; None for tasks of lm-eval."""
    lm_eval: str | None
    """The version of lm-eval that poses and scores the task; None for perplexities."""
    settings: Mapping[str, object]
    """Whatever else decides its items and how they are scored."""


@dataclass(frozen=True)
class ModelSource:
    """Where a model was taken from."""

    kind: Literal["hub", "path", "plugin"]
    name: str
    """Id of the hub repository, directory on the machine of the run, or the plugin's name of it."""


@dataclass(frozen=True)
class ModelRecord:
    """A full model of the suite."""

    content: str
    """`sha256:` and the hash of its files, or `commit:` and the hub's commit."""
    source: ModelSource
    revision: str | None
    """Commit of the hub repository, where the suite names one."""
    trust_remote_code: bool
    """Whether code that comes with the model was run."""
    dtype: str
    """What it was computed in; `facts.dtype` is what it is stored in."""
    facts: ModelFacts
    attention: str = "sdpa"
    """How its attention was computed."""
    size: StoredSize | None = None
    """What its tensors take in its files; None where they are no safetensors."""
    same_as: str | None = None
    """Another model of the suite of which this is a stored form."""


@dataclass(frozen=True)
class Provenance:
    """Settings that all runs of the results share, and a record of each run."""

    router: RouterMode
    """Of the suite."""
    corpora: Mapping[str, CorpusSettings]
    """Those that are no mixes."""
    tasks: Mapping[str, TaskSettings]
    models: Mapping[str, ModelRecord]
    methods: Mapping[str, Mapping[str, MethodSettings]]
    """Model -> method -> its settings, candidates that are not evaluated included."""
    runs: tuple[RunRecord, ...]
    """One, or all that were merged."""
    mixes: Mapping[str, MixSettings] = field(default_factory=dict)
    """Calibration corpora that are mixed of others."""

    @property
    def versions(self) -> dict[str, str]:
        """What all runs share; of a package whose builds differ, the release."""
        shared = {}
        for package, version in self.runs[0].versions.items():
            builds = {run.versions.get(package, "") for run in self.runs}
            releases = {release(build) for build in builds}
            if len(releases) == 1:
                shared[package] = version if len(builds) == 1 else releases.pop()
        return shared

    def texts_of(self, model: str, method: str) -> tuple[str, ...]:
        """The corpora of a method and of what it builds upon, each once.

        Raises `KeyError` for a method that is not on record; a candidate that is not, because its
        plugin is broken, has none.
        """
        settings = self.methods[model][method]
        known = settings.candidate in self.methods[model]
        below = self.texts_of(model, settings.candidate) if settings.candidate and known else ()
        return tuple(dict.fromkeys((*settings.corpora, *below)))

    def calibration_tokens(self, model: str, method: str) -> int | None:
        """Tokens of these corpora; None where they are not on record."""
        if method not in self.methods.get(model, {}):
            return None
        profiles, texts = self.profiles_of(model), self.texts_of(model, method)
        if not all(text in profiles for text in texts):
            return None
        return sum(profiles[text].tokens for text in texts)

    def profiles_of(self, model: str) -> dict[str, CorpusProfile]:
        """Corpus -> what profiling the model counted, of the run that counted most."""
        known: dict[str, CorpusProfile] = {}
        for run in self.runs:
            for corpus, profile in run.profiles.get(model, {}).items():
                if corpus not in known or known[corpus].never_selected is None:
                    known[corpus] = profile
        return known


def release(version: str) -> str:
    """A version without the build's variant, such as `+cpu`."""
    return version.partition("+")[0]
