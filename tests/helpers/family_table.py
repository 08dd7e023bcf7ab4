"""Writes the table of what is treated.

`PYTHONPATH=tests python -m helpers.family_table > docs/families.md`
"""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from helpers.family_models import (
    COMPOSITE,
    REFUSED,
    configuration,
    family_of,
    moe_model_types,
)
from mbench.core.errors import UnsupportedModel
from mbench.moe.adapter import find_moe_layers
from mbench.moe.router import fewest_experts

HEAD = """\
# Model families

Every causal language model of transformers with a mixture of experts, by the `model_type` of its
configuration. `tests/moe/test_families.py` proves each row on tiny random models, and
`PYTHONPATH=tests python -m helpers.family_table > docs/families.md` writes this page.

## Treated

Statistics equal a float64 loop over tokens. A masked model equals a smaller one that holds the
retained experts' weights, also after saving and loading it.

- *bias*: added to the scores for the choice only.
- *groups*: with more than one group of experts, a mask must retain the same number in each, and
  gates cannot be preserved.
- *fewest*: the least number of experts that the router can choose from, in each group. Many rate a
  group, even a single one, by its two best experts.
- *gates renormalised*: over the chosen experts; a name is the configuration's field that says so. A
  factor by which a layer multiplies the sum of its experts afterwards is in no gate.
- *preserved*: whether `router: preserved` is defined.

All statistics, masks and evaluations work for these. A method may need more: the reconstruction
search of `expert-sparsity`, which `tb-coverage`, `mean-protected` and `max-protected` start from,
is defined for softmax scores without a bias, and says so of others. `m-smoe` and `ream` compare
router logits, which the routers of `gemma4_text` and `phimoe` do not return.

Models that also take images or sound are treated as the language models they contain.

| model_type | class | scores | bias | groups | fewest | gates renormalised | shared experts | \
preserved |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""
REFUSALS = """
## Refused

A model is refused whole if any of its layers is.

| model_type | class | reason, of a tiny model |
| --- | --- | --- |
"""


def table() -> str:
    treated, refused = [], []
    for model_type in sorted(moe_model_types()):
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(configuration(model_type))
        cells = [f"`{model_type}`", str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type])]
        if COMPOSITE.get(model_type, model_type) in REFUSED:
            refused.append([*cells, reason(model)])
        else:
            treated.append(cells + properties(model_type, model))
    return HEAD + rows(treated) + REFUSALS + rows(refused)


def rows(lines: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def properties(model_type: str, model: torch.nn.Module) -> list[str]:
    family = family_of(model_type)
    router = family.router
    known = ("softmax", "sigmoid", "sparsemixer")
    renormalised = {True: "always", False: "never"}.get(router.renormalised)
    shared = any("shared" in name for name, _ in model.named_modules())
    return [
        router.score if router.score in known else f"`{router.score}`",
        "yes" if router.bias else "",
        "`n_group`" if router.groups else "",
        str(fewest_experts(find_moe_layers(model)[0])),
        renormalised or f"`{router.renormalised}`",
        "yes" if shared else "",
        "yes" if family.preserved is None else f"no: they {family.preserved}",
    ]


def reason(model: torch.nn.Module) -> str:
    try:
        find_moe_layers(model)
    except UnsupportedModel as error:
        return str(error).removeprefix(f"{type(model).__name__}: ")
    raise AssertionError(f"{type(model).__name__} is not refused")


if __name__ == "__main__":
    print(table(), end="")
