"""Methods on one calibration corpus, `METHOD@CORPUS`: those of a cross, and what a suite says."""

from __future__ import annotations

from pydantic import ValidationError

from mbench.core.suite import CrossSpec, MethodSpec, Suite
from mbench.plan.yaml_source import Place, YamlSource
from mbench.plan.yaml_text import PlacedMap

MOST_CROSSED = 1000
"""Methods by corpora."""


def method_of(name: str) -> str:
    """The method that a name means, without the corpus: of `reap@wiki`, `reap`."""
    return name.partition("@")[0]


def corpus_of(name: str) -> str:
    """The corpus that a name says, or nothing: of `reap@wiki`, `wiki`."""
    return name.partition("@")[2]


def spec_of(suite: Suite, name: str, asked_at: Place) -> tuple[Place, MethodSpec]:
    """Where the suite says what a method is made of, and what.

    `METHOD@CORPUS` with nothing said of it is what METHOD is, on that corpus; what the suite does
    not list at all is what plugins offer, for the method at `asked_at`.
    """
    corpus = corpus_of(name)
    found = asked_at, MethodSpec()
    # The last one that says anything counts.
    for wanted in (method_of(name), name) if corpus else (name,):
        for section, specs in (("candidates", suite.candidates), ("methods", suite.methods)):
            if wanted in specs and (specs[wanted].model_fields_set or found[0] == asked_at):
                found = (section, wanted), specs[wanted]
    place, spec = found
    return place, spec.model_copy(update={"corpora": (corpus,)}) if corpus else spec


def list_crossed(source: YamlSource) -> None:
    """Put the methods of `cross` among those of the suite, in the place of it.

    Raises `SuiteError` for an unknown corpus, for what is listed twice, and for too many. What is
    no cross at all stays as it is, for the check of the whole suite.
    """
    try:
        cross = CrossSpec.model_validate(source.plain().get("cross"))
    except ValidationError:
        return
    methods = source.data.setdefault("methods", PlacedMap())
    if not isinstance(methods, dict):
        return
    if len(cross.methods) * len(cross.corpora) > MOST_CROSSED:
        problem = f"{len(cross.methods)} methods by {len(cross.corpora)} corpora are more than the"
        raise source.error(("cross",), f"{problem} {MOST_CROSSED} that are crossed: split it")
    for key, names in (("methods", cross.methods), ("corpora", cross.corpora)):
        for index, name in enumerate(names):
            if name in names[:index]:
                raise source.error(("cross", key, index), f"{name!r} is listed twice")
    for index, corpus in enumerate(cross.corpora):
        if corpus not in source.section("corpora"):
            place = ("cross", "corpora", index)
            raise source.unknown(place, "corpus", corpus, source.section("corpora"))
    for index, method in enumerate(cross.methods):
        for corpus in cross.corpora:
            name = f"{method}@{corpus}"
            if name not in methods and name not in source.section("candidates"):
                source.add(("methods", name), {}, ("cross", "methods", index))
    del source.data["cross"]
