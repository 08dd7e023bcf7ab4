"""Which programs can load an exported checkpoint, by what was left of its experts."""

from __future__ import annotations

from mbench.export.written import STOCK, Kind

WHY = {
    "uneven": "layers keep different numbers of experts",
    "uneven-merged": "layers keep different numbers of experts",
    "mapped": "tokens of dropped experts go to the experts that they were merged into",
    "constants": "constants stand in for dropped experts",
}
"""What a stock configuration cannot say."""


READS = {
    "MXFP4": "it reads the same numbers as mbench does",
    "FP8": "where blocks divide every weight it reads the same numbers as mbench does, elsewhere"
    " others or none",
}
"""What transformers makes of stored forms, by the first word of their description."""


def servers(kind: Kind, stored_form: str) -> dict[str, str]:
    """Program -> whether it takes such a checkpoint, as far as it is known.

    transformers and mbench are what the tests of this project try; vLLM is not tried on an export.
    `stored_form` is how weights are stored in fewer bits, in words, if they are.
    """
    if kind in STOCK:
        loads = "loads it, as any checkpoint of its family"
        if stored_form:
            reads = READS.get(stored_form.split()[0], "it may read other numbers than mbench does")
            loads = f"as far as it loads the full model in {stored_form}: {reads}"
        form = f"in {stored_form}" if stored_form else "in stock form"
        return {
            "transformers": loads,
            "vLLM": f"a checkpoint of its family with fewer experts, {form}; not tried",
            "mbench": "loads it, as `path` of a model in a suite",
        }
    own = ", but has one of its own for constants (expert substitution)"
    return {
        "transformers": f"refuses it: no configuration says that {WHY[kind]}",
        "vLLM": f"does not know this form{own if kind == 'constants' else ''}",
        "mbench": "loads it with `mbench.load_pruned(folder)`",
    }
