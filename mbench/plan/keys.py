"""The keys of everything that is stored: one pure function for each kind, plain values in, key out.

A key holds all that decides the thing, so that what is found under it is what this code, these
plugins and these inputs would give:

| kind        | code of mbench         | versions            | and                                |
| ----------- | ---------------------- | ------------------- | ---------------------------------- |
| statistic   | moe/                   | torch, transformers | model, corpus, statistic's source  |
| mask        | core/interfaces.py,    | of what its parts   | its statistics, components'        |
|             | core/search.py,        | import              | sources, budget, candidate, seed,  |
|             | core/stand_ins.py,     |                     | names of model and corpora, which  |
|             | run/mask_maker.py,     |                     | components see                     |
|             | run/stability.py; of a |                     |                                    |
|             | search also a probe's  |                     |                                    |
| recognised  | moe/                   | torch, transformers | model, published checkpoint        |
| probe       | evaluate/lm_head.py,   | torch, transformers | model, corpus, its sequences,      |
|             | moe/, run/probe.py,    |                     | mask, router; of a profile under   |
|             | run/probe_passes.py    |                     | a mask, the statistic's source     |
| evaluation  | evaluate/, moe/        | torch, transformers | model, mask, router, task          |
| efficiency  | moe/, run/footprint.py | torch, transformers | model, budget, settings, device    |
| model facts | moe/                   | torch, transformers | model                              |
| stored size | moe/                   | torch, transformers | model                              |
| task size   | evaluate/              |                     | model, task                        |
| item texts  | evaluate/              |                     | task; in a chat template also the  |
|             |                        |                     | model                              |
| admission   | evaluate/, moe/,       | torch, transformers | the inputs that are looked at      |
|             | plan/admission/, text  |                     |                                    |
| text        | storage/texts.py,      |                     | its files, or its commit           |
|             | storage/text_files/    |                     |                                    |

A text counts by the content of its files, or by its commit, and by the code that reads it or the
plugin that gives it; so nothing of it is read for a key but the bytes of files, once. The stages
in run/ only pass on what the suite says, so that an edit there moves no key.

No key holds a version of mbench: a release throws nothing away. None holds paths, the order of
anything, the device or the batch size, but for measurements of speed. lm-eval's version is part of
its tasks' fingerprints. Components are identified by name, class, parameters and source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mbench.plan.computing_code import Code
from mbench.storage.store import Key


@dataclass(frozen=True)
class ComponentKey:
    """What identifies a component: equal for those that do the same, wherever they came from."""

    name: str
    class_name: str
    """Qualified within its module."""
    params: Mapping[str, Any]
    source: str
    """sha256 of its module and all that it imports."""
    distributions: Mapping[str, str]
    """Versions of the installed distributions that these modules import."""

    def parts(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "class": self.class_name,
            "params": dict(self.params),
            "source": self.source,
            "distributions": dict(self.distributions),
        }


@dataclass(frozen=True)
class ModelIdentity:
    """A model as keys know it."""

    name: str
    """In the suite: for people who look at the store, and for components, which see it."""
    content: str
    """Hash of its files, or the hub's commit."""
    dtype: str
    """As the suite asks for it."""
    attention: str = "auto"
    """Likewise."""

    def parts(self) -> dict[str, str]:
        """Plain values that decide what the model computes."""
        return {"content": self.content, "dtype": self.dtype, "attention": self.attention}


def statistic_key(
    code: Code,
    model: ModelIdentity,
    corpus_name: str,
    corpus: Mapping[str, Any],
    statistic: ComponentKey,
    shards: int,
) -> Key:
    """One statistic of one model on one corpus; `corpus` is its text and how it is cut."""
    return Key.of(
        "statistics",
        f"{statistic.name} of {model.name} on {corpus_name}",
        {
            "kind": "statistic",
            "code": code.of("statistic"),
            "versions": dict(code.versions),
            "model": model.parts(),
            "corpus": dict(corpus),
            "statistic": statistic.parts(),
            "shards": shards,
        },
    )


def mask_key(
    code: Code,
    model: ModelIdentity,
    label: str,
    components: Mapping[str, ComponentKey],
    statistics: Sequence[Sequence[Key]],
    corpora: Sequence[Mapping[str, Any]],
    shape: tuple[int, int, int],
    retain: float,
    router: str,
    candidate: Key | None,
    seed: int | None,
    resamples: int,
    searches: bool,
) -> Key:
    """The mask of one cell.

    Args:
        code: what computes.
        model: whose experts are kept.
        label: the cell's, for people who look at the store.
        components: by kind: scorer, selector, builder.
        statistics: per corpus, those that the components read; the order of the corpora decides
            who comes first in a round-robin.
        corpora: names, which components see, texts and how they are cut, in the same order.
        shape: layers, experts in each, experts kept.
        retain: the budget as the suite says it.
        router: the router mode that the method simulates.
        candidate: the mask that it builds upon.
        seed: of a method that draws at random.
        resamples: how often it is made again to tell how stable it is.
        searches: whether it is found by forward passes.
    """
    passes = {"probe": code.of("probe"), "versions": dict(code.versions)} if searches else {}
    return Key.of(
        "masks",
        label,
        {
            "kind": "mask",
            "code": code.of("mask"),
            "model": {"name": model.name, **model.parts()},
            "components": {kind: each.parts() for kind, each in components.items()},
            "statistics": [[key.digest for key in keys] for keys in statistics],
            "corpora": [dict(corpus) for corpus in corpora],
            "experts": list(shape),
            "retain": retain,
            "router": router,
            "candidate": None if candidate is None else candidate.digest,
            "seed": seed,
            "resamples": resamples,
            **passes,
        },
    )


def recognised_key(code: Code, model: ModelIdentity, label: str, checkpoint: str) -> Key:
    """What a published checkpoint is, beside the full model; both by the hashes of their files."""
    return Key.of(
        "masks",
        label,
        {
            "kind": "recognised",
            "code": code.of("recognised"),
            "versions": dict(code.versions),
            "model": model.content,
            "checkpoint": checkpoint,
        },
    )


def probe_key(
    code: Code,
    model: ModelIdentity,
    corpus: Mapping[str, Any],
    sequences: int,
    mask: str,
    router: str,
) -> Key:
    """What one mask gave on the first sequences of a corpus, by the mask's content."""
    return Key.of(
        "probes",
        f"{model.name} mask {mask[:12]} on {sequences} sequences of {corpus['name']}",
        _probed("probe", code, model, corpus, sequences, mask, router),
    )


def masked_statistic_key(
    code: Code,
    model: ModelIdentity,
    corpus: Mapping[str, Any],
    sequences: int,
    mask: str,
    router: str,
    statistic: ComponentKey,
    shards: int,
) -> Key:
    """One statistic under a mask, on the first sequences of a corpus."""
    return Key.of(
        "statistics",
        f"{statistic.name} of {model.name} mask {mask[:12]} on {corpus['name']}",
        {
            **_probed("masked statistic", code, model, corpus, sequences, mask, router),
            "statistic": statistic.parts(),
            "shards": shards,
        },
    )


def _probed(
    kind: str,
    code: Code,
    model: ModelIdentity,
    corpus: Mapping[str, Any],
    sequences: int,
    mask: str,
    router: str,
) -> dict[str, Any]:
    return {
        "kind": kind,
        "code": code.of("probe"),
        "versions": dict(code.versions),
        "model": model.parts(),
        # A corpus's name decides nothing that is measured.
        "corpus": {name: value for name, value in corpus.items() if name != "name"},
        "sequences": sequences,
        "mask": mask,
        "router": router,
    }


def evaluation_key(
    code: Code,
    model: ModelIdentity,
    mask: str,
    router: str,
    task_name: str,
    fingerprint: Mapping[str, Any],
) -> Key:
    """One mask on one task: by the content hash of the mask, whoever made it.

    `router` is `any` for the unpruned model: without a pruned expert there is nothing for the
    router mode to decide.
    """
    return Key.of(
        "evaluations",
        f"{model.name} mask {mask[:12]} on {task_name}",
        {
            "kind": "evaluation",
            "code": code.of("evaluation"),
            "versions": dict(code.versions),
            "model": model.parts(),
            "mask": mask,
            "router": router,
            "task": dict(fingerprint),
        },
    )
