"""Whether a method keeps and drops the planted experts that its author says it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import numpy as np

from mbench.core.errors import unknown
from mbench.testing.cases import Case
from mbench.testing.failures import Broken, ConformanceError, Refused
from mbench.testing.making import make
from mbench.testing.subject import Subject
from mbench.testing.synthetic import Planted
from mbench.testing.synthetic_layers import Size

CASES = tuple(Case(Size(2, 8, 2), 4, kind="planted", seed=seed) for seed in range(3))
"""Half of the experts are kept: two of six kinds, or three where twins are."""


def refuse_other_choice(subject: Subject, kept: Mapping[str, bool]) -> None:
    """Raise `ConformanceError` where a method keeps or drops another planted expert.

    Args:
        subject: the method.
        kept: kind (a field of `Planted`) -> whether experts of the kind must be kept.
    """
    kinds = [each.name for each in fields(Planted)]
    for kind in kept.keys() - set(kinds):
        raise ConformanceError(unknown("kind of planted expert", kind, kinds))
    name = subject.method.name
    for case in CASES:
        try:
            keep = make(subject, case).mask.keep
        except (Broken, Refused) as error:
            raise ConformanceError(f"method {name!r} makes no mask: {error}, {case}") from error
        for kind, wanted in kept.items():
            for layer, experts in enumerate(getattr(case.model.planted, kind)):
                if (keep[layer, experts] != wanted).any():
                    verb = "must keep" if wanted else "must drop"
                    raise ConformanceError(
                        f"method {name!r} {verb} the planted {kind!r}"
                        f" {np.atleast_1d(experts).tolist()} of layer {layer}, but keeps"
                        f" {np.flatnonzero(keep[layer]).tolist()}\nsmallest case: {case}"
                    )
