"""AWQ checkpoints in the version `gemm`, as AutoAWQ and GPTQModel write them.

Of a layer with `in` inputs and `out` outputs (AutoAWQ, `awq/modules/linear/gemm.py`,
`WQLinear_GEMM`, and `awq/utils/packing_utils.py`, `dequantize_gemm`):

    qweight int32 [in, out / 8]      numbers q, packed along the outputs
    qzeros  int32 [groups, out / 8]  zero points z, packed likewise
    scales  16 bit [groups, out]     s

From its lowest bits on, a word holds the outputs 0 2 4 6 1 3 5 7 of eight. The weight is
`(q - z) * s`, which float32 holds without rounding; the programs round it to 16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mbench.core.errors import UnsupportedModel
from mbench.moe.quantised.form import Form, Part, refuse_unknown
from mbench.moe.quantised.packing import for_blocks, integers
from mbench.moe.quantised.parts import PLAIN, Parts, by_last_word
from mbench.moe.quantised.settings import group_size, groups_in_words

if TYPE_CHECKING:
    import torch

PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Of each of eight outputs, its place in a word, from the lowest bits on."""
ROLES = ("qweight", "qzeros", "scales")
GEMM = ("gemm", "GEMM", None)
ANY = (
    *("quant_method", "method", "group_size", "modules_to_not_convert", "ignore", "lm_head"),
    *("do_fuse",),
    *("fuse_max_seq_len", "modules_to_fuse", "exllama_config", "meta"),
)
KNOWN: Mapping[str, tuple[Any, ...] | None] = {
    **dict.fromkeys(ANY),
    "bits": (4,),
    "version": GEMM,
    "format": GEMM,
    "checkpoint_format": GEMM,
    "zero_point": (True, False),
    "sym": (True, False),
    "backend": ("autoawq", "auto", None),
    "pack_dtype": ("int32", None),
    "desc_act": (False, None),
}


@dataclass(frozen=True)
class Awq(Form):
    """Integers of four bits with a scale and a zero point per group of inputs."""

    group_size: int
    """Of inputs; -1 for all."""
    zero_point: bool
    """Whether zero points differ from the middle of the integers' range."""

    @property
    def words(self) -> str:
        """E.g. `int4 in groups of 128 (AWQ)`."""
        return f"int4 {groups_in_words(self.group_size)} (AWQ)"

    @property
    def activations(self) -> str:
        """AWQ quantises weights only."""
        return ""

    def part(self, name: str) -> Part:
        """Tell what a stored tensor is part of, by its name alone."""
        return by_last_word(name, ROLES)

    def decode(self, weight: str, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the weight, float32 [out, in]."""
        stored = Parts(self, weight, parts)
        stored.only(ROLES)
        packed = stored.matrix("qweight", "int32")
        inputs, outputs = packed.shape[0], packed.shape[1] * 8
        size = inputs if self.group_size == -1 else self.group_size
        if inputs % size:
            stored.refuse(f"{inputs} inputs are not groups of {size}")
        groups = inputs // size
        scales = stored.tensor("scales", PLAIN, (groups, outputs))
        zeros = _outputs(stored.tensor("qzeros", ("int32",), (groups, outputs // 8)))
        if not self.zero_point and not bool((zeros == 8).all()):
            stored.refuse("declared without zero points, but one is not 8")
        numbers = _outputs(packed).T.contiguous()
        for_blocks(numbers, zeros.T, (1, size), zero=True)
        return for_blocks(numbers, scales.T.float(), (1, size))


def _outputs(packed: torch.Tensor) -> torch.Tensor:
    """Numbers of words [..., n], float32 [..., 8n] in the order of the outputs."""
    of_word: torch.Tensor = integers(packed, 4).unflatten(-1, (-1, 8))
    return of_word[..., PLACES].flatten(-2)


def read_awq(settings: Mapping[str, Any]) -> Awq:
    """The form of `quant_method: awq`; raises `UnsupportedModel` for what is not known."""
    # AutoAWQ's own quant_config.json has other names for two settings.
    older = {"w_bit": "bits", "q_group_size": "group_size"}
    settings = {older.get(name, name): value for name, value in settings.items()}
    refuse_unknown("awq", {"bits": None, **settings}, KNOWN)
    zero_point = settings.get("zero_point", not settings.get("sym", False))
    if settings.get("sym", not zero_point) == zero_point:
        raise UnsupportedModel("weights stored by 'awq': sym and zero_point contradict each other")
    return Awq(group_size("awq", settings), zero_point)
