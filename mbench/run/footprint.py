"""Size, memory and speed of a model and its pruned version, side by side."""

from __future__ import annotations

import platform
import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from mbench.core.errors import MbenchError
from mbench.core.model_facts import DTYPE_BYTES, ModelFacts
from mbench.core.savings import Footprint, Spread
from mbench.moe.adapter import MoELayer
from mbench.moe.config import positions_of
from mbench.moe.load import count_parameters

if TYPE_CHECKING:
    from mbench.core.suite import EfficiencySpec


def device_name() -> str:
    """The accelerator, or the processor and the threads that are used of it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return next(iter(names), platform.processor() or platform.machine())


def even_mask(layers: Sequence[MoELayer], kept: int) -> np.ndarray:
    """bool [L, N] with `kept` experts in every layer, spread evenly over their numbers."""
    count = layers[0].num_experts
    row = np.diff(np.arange(count + 1) * kept // count).astype(bool)
    return np.tile(row, (len(layers), 1))


PROMPT = 512
"""Tokens of a prompt where the suite names no number and the model has room for them."""


def compare(
    model: PreTrainedModel,
    pruned: PreTrainedModel,
    spec: EfficiencySpec,
    facts: ModelFacts,
    stored: tuple[int, int] | None = None,
) -> tuple[Footprint, Footprint, str]:
    """Measure both alternately; also returns what counted the allocations. `facts` are `model`'s.

    `stored` are the bytes of both checkpoints; None: not known, and as many as plain tensors take.

    Both run as stock transformers runs them, on the same prompts of random tokens. The first
    repetition warms up and is not counted; the order changes from one repetition to the next.
    Raises `MbenchError` for sequences longer than the model's context, and where weights are stored
    in fewer bits and nobody knows in how many bytes.
    """
    if facts.stored_form and stored is None:
        raise MbenchError(f"how many bytes its weights take in {facts.stored_form} is not known")
    config = model.config.get_text_config()
    longest = positions_of(model.config)
    room = None if longest is None else longest - spec.new_tokens
    prompt = spec.prompt_tokens or (PROMPT if room is None else min(PROMPT, max(1, room)))
    if room is not None and prompt > room:
        raise MbenchError(
            f"{prompt} prompt_tokens and {spec.new_tokens} new_tokens exceed the model's {longest}"
        )
    generator = torch.Generator().manual_seed(0)
    shape = (spec.batch_size, prompt)
    ids = torch.randint(config.vocab_size, shape, generator=generator).to(model.device)
    sides = (model, pruned)
    seconds: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    for repetition in range(1 + spec.repetitions):
        for side in (0, 1) if repetition % 2 else (1, 0):
            spent = generate(sides[side], ids, spec.new_tokens)
            if repetition:
                seconds[side].append(spent)
    footprints = []
    for number, (measured, pairs) in enumerate(zip(sides, seconds, strict=True)):
        weights = _weight_bytes(measured)
        beside, allocations = most_allocated(
            partial(generate, measured, ids, spec.new_tokens), ids.device
        )
        prefill, decode = zip(*pairs, strict=True)
        parameters = count_parameters(measured, facts.model_type)
        footprints.append(
            Footprint(
                parameters=parameters,
                checkpoint_bytes=stored[number] if stored else _plain_bytes(measured, facts),
                weight_bytes=weights,
                peak_bytes=weights + beside,
                prefill=_spread(ids.numel(), prefill),
                decode=_spread(spec.batch_size * spec.new_tokens, decode),
            )
        )
    return footprints[0], footprints[1], allocations


def _spread(tokens: int, seconds: Sequence[float]) -> Spread:
    speeds = [tokens / each for each in seconds]
    return Spread(min(speeds), statistics.median(speeds), max(speeds))


@torch.no_grad()
def generate(model: PreTrainedModel, ids: torch.Tensor, new_tokens: int) -> tuple[float, float]:
    """Seconds of the prefill, which gives the first token, and of `new_tokens` more."""
    start = _now(ids.device)
    output = model(input_ids=ids, use_cache=True, logits_to_keep=1)
    between = _now(ids.device)
    for _ in range(new_tokens):
        token = output.logits[:, -1:].argmax(dim=-1)
        output = model(
            input_ids=token,
            past_key_values=output.past_key_values,
            use_cache=True,
            logits_to_keep=1,
        )
    return between - start, _now(ids.device) - between


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _plain_bytes(model: PreTrainedModel, facts: ModelFacts) -> int:
    """Of a checkpoint of plain tensors: buffers are in the dtype they have in memory."""
    stored = model.state_dict()
    buffers = sum(buffer.nbytes for name, buffer in model.named_buffers() if name in stored)
    return count_parameters(model, facts.model_type) * DTYPE_BYTES[facts.dtype] + buffers


def _weight_bytes(model: PreTrainedModel) -> int:
    tensors = {t.data_ptr(): t for t in (*model.parameters(), *model.buffers())}
    return sum(tensor.nbytes for tensor in tensors.values())


def most_allocated(run: Callable[[], object], device: torch.device) -> tuple[int, str]:
    """The most bytes that `run`, on `device`, held beyond those before it, and what counted them.

    The resident size of the process would not tell: allocators keep what was freed, and both
    models are loaded.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before, "torch.cuda allocator"
    with _LiveTensors() as live:
        run()
    return live.most, "sizes of live tensors"


class _LiveTensors(TorchDispatchMode):
    """Adds up the tensors that operations return until they are freed.

    What an operation allocates and frees inside itself is not counted: PyTorch has no counter of
    what it allocates on the CPU.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._now = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        # What an operation is given was there before, e.g. the weights.
        self._meet((args, kwargs), count=False)
        output = func(*args, **(kwargs or {}))
        self._meet(output, count=True)
        return output

    def _meet(self, values: Any, *, count: bool) -> None:
        for tensor in tree_leaves(values):
            if not isinstance(tensor, torch.Tensor):
                continue
            storage = tensor.untyped_storage()
            if storage in self._known:
                continue
            self._known.add(storage)
            if count:
                size = storage.nbytes()
                weakref.finalize(storage, self._free, size)
                self._now += size
                self.most = max(self.most, self._now)

    def _free(self, size: int) -> None:
        self._now -= size
