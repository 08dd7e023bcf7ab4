"""GPTQ checkpoints, as AutoGPTQ and GPTQModel write them.

Of a layer with `in` inputs and `out` outputs, both programs store integers column by column of
the transposed weight (GPTQModel, `gptqmodel/nn_modules/qlinear/__init__.py`,
`dequantize_weight`):

    qweight int32 [in * bits / 32, out]     numbers q, packed along the inputs
    scales  16 bit [groups, out]            s
    qzeros  int32 [groups, out * bits / 32] zero points z, packed along the outputs
    g_idx   int32 [in]                      the group g of each input

The weight is `s[g] * (q - z[g])`, which float32 holds without rounding; the programs round it
to the 16 bits of the scales. In the checkpoint format `gptq` the stored zero point is one less
(`gptqmodel/utils/model.py`, `convert_gptq_v1_to_v2_format_module`), in `gptq_v2` it is itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mbench.core.errors import UnsupportedModel
from mbench.moe.quantised.form import Form, Part, refuse_unknown
from mbench.moe.quantised.packing import for_blocks, integers
from mbench.moe.quantised.parts import PLAIN, Parts, by_last_word
from mbench.moe.quantised.settings import group_size, groups_in_words, inner

if TYPE_CHECKING:
    import torch

ROLES = ("qweight", "qzeros", "scales", "g_idx")
FORMATS = ("gptq", "gptq_v2")
HOW_MADE = (
    *("quant_method", "method", "meta", "damp_percent", "damp_auto_increment", "static_groups"),
    *("true_sequential", "mse", "act_group_aware", "dataset", "tokenizer", "model_seqlen"),
    *("batch_size", "block_name_to_quantize", "module_name_preceding_first_block", "lm_head"),
    *("modules_in_block_to_quantize", "modules_to_not_convert", "cache_block_outputs"),
    *("pad_token_id", "model_name_or_path", "model_file_base_name", "use_cuda_fp16", "backend"),
    *("use_exllama", "disable_exllama", "exllama_config", "max_input_length", "quantizer"),
    *("version", "failsafe", "fallback", "hyb_act", "offload_to_disk", "offload_to_disk_path"),
    *("pack_impl", "mock_quantization", "desc_act", "sym", "group_size", "dynamic"),
)
"""Settings of any value: how the integers were found, and what is checked below."""
KNOWN: Mapping[str, tuple[Any, ...] | None] = {
    **dict.fromkeys(HOW_MADE),
    "bits": (2, 4, 8),
    "checkpoint_format": (*FORMATS, None),
    "format": (*FORMATS, None),
    "pack_dtype": ("int32", None),
    "is_marlin_format": (False, None),
    "rotation": (None, ""),
    "adapter": (None,),
    "activation": (None,),
}


@dataclass(frozen=True)
class Gptq(Form):
    """Integers with a scale and a zero point per group of inputs."""

    bits: int
    group_size: int
    """Of inputs; -1 for all."""
    symmetric: bool
    """Whether every zero point is the middle of the integers' range."""
    ordered: bool
    """Whether groups are neighbours, which `desc_act` gives up."""
    offset: int
    """What is added to stored zero points."""

    @property
    def words(self) -> str:
        """E.g. `int4 in groups of 128 (GPTQ)`."""
        return f"int{self.bits} {groups_in_words(self.group_size)} (GPTQ)"

    @property
    def activations(self) -> str:
        """GPTQ quantises weights only."""
        return ""

    def part(self, name: str) -> Part:
        """Tell what a stored tensor is part of, by its name alone."""
        return by_last_word(name, ROLES)

    def decode(self, weight: str, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the weight, float32 [out, in]."""
        stored = Parts(self, weight, parts)
        stored.only(ROLES)
        packed = stored.matrix("qweight", "int32")
        numbers = integers(packed.T, self.bits)
        outputs, inputs = numbers.shape
        size = inputs if self.group_size == -1 else self.group_size
        groups = -(-inputs // size)
        scales = stored.tensor("scales", PLAIN, (groups, outputs)).T.float()
        zeros = self._zeros(stored, groups, outputs).T
        order = self._order(stored, inputs, size)
        if order is None:
            for_blocks(numbers, zeros, (1, size), zero=True)
            return for_blocks(numbers, scales, (1, size))
        numbers.sub_(zeros[:, order])
        return numbers.mul_(scales[:, order])

    def _zeros(self, stored: Parts, groups: int, outputs: int) -> torch.Tensor:
        """Zero points, float32 [groups, out]."""
        packed = stored.tensor("qzeros", ("int32",), (groups, -(-outputs * self.bits // 32)))
        zeros = integers(packed, self.bits)[:, :outputs]
        largest, middle = 2**self.bits - 1, 2 ** (self.bits - 1)
        if self.offset and bool((zeros == largest).any()):
            stored.refuse(
                f"a zero point is stored as {largest}, which programs read as 0 or as {largest + 1}"
            )
        zeros = zeros + self.offset
        if self.symmetric and not bool((zeros == middle).all()):
            stored.refuse(f"declared symmetric, but a zero point is not {middle}")
        return zeros

    def _order(self, stored: Parts, inputs: int, size: int) -> torch.Tensor | None:
        """The group of each input, unless they are neighbours."""
        import torch

        if "g_idx" not in stored and self.ordered:
            return None
        groups = stored.tensor("g_idx", ("int32", "int64"), (inputs,)).long()
        if torch.equal(groups, torch.arange(inputs, device=groups.device) // size):
            return None
        if self.ordered:
            stored.refuse("desc_act is false, but g_idx is not in order")
        if int(groups.min()) < 0 or int(groups.max()) >= -(-inputs // size):
            stored.refuse("g_idx names groups that have no scale")
        return groups


def read_gptq(settings: Mapping[str, Any]) -> Gptq:
    """The form of `quant_method: gptq`; raises `UnsupportedModel` for what is not known."""
    refuse_unknown("gptq", {"bits": None, **settings}, KNOWN)
    formats = {settings.get("checkpoint_format"), settings.get("format")} - {None} or {"gptq"}
    if len(formats) > 1:
        raise UnsupportedModel("weights stored by 'gptq' with two different formats are not read")
    for pattern in inner("gptq", settings, "dynamic"):
        if not str(pattern).startswith("-:"):  # That only leaves modules out.
            raise UnsupportedModel(
                f"weights stored by 'gptq' with other settings for {pattern!r} are not read"
            )
    return Gptq(
        settings["bits"],
        group_size("gptq", settings),
        symmetric=settings.get("sym", True) is True,
        ordered=settings.get("desc_act", False) is False,
        offset=1 if formats == {"gptq"} else 0,
    )
