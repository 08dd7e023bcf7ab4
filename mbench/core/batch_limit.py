"""How many tokens go through a model at once: as many as memory has room for, fewer after it ran
out. It never changes what is computed, but for the rounding, and so enters no key."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

Batch = TypeVar("Batch")
Result = TypeVar("Result")

UNMEASURED = 8192
"""Tokens in a batch where nobody says how many and memory is not measured: on the CPU, where more
make it no faster, and in passes that do not go on after memory ran out."""
FIRST = 2048
"""Tokens of the first batch on a GPU, whose memory is measured."""
MOST = 2**17
"""Tokens of a batch up to which a GPU's memory is filled: beyond it, no large model is faster."""
GROWTH = 4
"""How many times as many tokens a batch may have as the one that was measured."""
SHARE = 0.8
"""Of free memory that a batch is expected to take: the rest is lost between blocks."""
FULL = 0.9
"""Of its longest row's tokens, what a batch's other rows have at least."""
MESSAGES = ("DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Of the plain RuntimeErrors that say the same as `torch.OutOfMemoryError`."""


class BatchLimit:
    """A limit of tokens, padding included, which every batch keeps that can be cut further."""

    def __init__(
        self,
        tokens: int,
        *,
        devices: Sequence[torch.device] = (),
        tell: Callable[[str], object] = lambda text: None,
    ) -> None:
        """Begin with so many tokens.

        Args:
            tokens: at first.
            devices: GPUs whose free memory the limit grows into, measured batch by batch; none: it
                stays.
            tell: is called with one line whenever memory ran out.
        """
        self.tokens = tokens
        """Of the next batch, at most."""
        self.rows: int | None = None
        """Answers that are generated side by side, at most; None before memory ran out over more.
        """
        self._devices = tuple(devices)
        self._tell = tell

    @classmethod
    def automatic(cls, model: Any, tell: Callable[[str], object] = lambda text: None) -> BatchLimit:
        """As much as the GPUs that a model lies on have memory for; `UNMEASURED` without any.

        `model` is a `torch.nn.Module` with its weights in place.
        """
        devices = {each.device for each in model.parameters() if each.device.type == "cuda"}
        found = sorted(devices, key=lambda device: device.index or 0)
        return cls(FIRST if found else UNMEASURED, devices=found, tell=tell)

    @classmethod
    def of(cls, tokens: int | BatchLimit) -> BatchLimit:
        """A number as a limit that does not grow; a limit as it is."""
        return tokens if isinstance(tokens, BatchLimit) else cls(tokens)

    def run(
        self,
        cut: Callable[[int], Iterable[Batch]],
        size: Callable[[Batch], int],
        compute: Callable[[Batch], object],
    ) -> None:
        """Compute batches until none is left; where memory runs out, cut the rest with half of it.

        Args:
            cut: what has not been computed by now, in batches of at most so many tokens; one that
                has more holds a single piece, which cannot be cut further. It is called again
                whenever the limit changes.
            size: tokens of a batch, padding included.
            compute: one batch, which counts as computed when it returns: of a batch that raises,
                nothing may be kept.

        Raises:
            torch.OutOfMemoryError: a single piece is too much, on the CPU, too.
        """
        while True:
            limit = self.tokens
            for batch in cut(limit):
                self._try(compute, batch, size(batch))
                if self.tokens != limit:
                    break
            else:
                return

    def whole(self, compute: Callable[[int], Result], least: int = 1) -> Result:
        """Compute with batches of so many tokens what cannot go on where memory ran out: then it
        begins again, with half of it.

        Nothing is measured before, so a limit that is found from memory is `UNMEASURED` at least.
        `least` are the tokens of a batch that is not cut further. Raises as `run` does.
        """
        if self._devices:
            self.tokens = max(self.tokens, UNMEASURED)
        found: list[Result] = []
        self.run(
            lambda tokens: [] if found else [tokens],
            lambda tokens: max(tokens, least),
            lambda tokens: found.append(compute(tokens)),
        )
        return found[0]

    def _try(self, compute: Callable[[Batch], object], batch: Batch, tokens: int) -> None:
        try:
            with self.measured(tokens):
                compute(batch)
            return
        except Exception as error:
            if not out_of_memory(error):
                raise
            if tokens > self.tokens or tokens < 2:
                raise _too_large(tokens, error) from error
            problem = type(error).__name__
        # Only here is the error gone, and with it the tensors of the functions that it came from.
        self.halve(tokens, problem)

    @contextmanager
    def measured(self, tokens: int, share: float = SHARE) -> Iterator[None]:
        """Around a batch of so many tokens: later ones may take that share of free memory."""
        held = self._watched()
        yield
        self._grow(tokens, held, share)

    def halve(self, tokens: int, problem: str) -> None:
        """Memory ran out over a batch of so many tokens; `problem` is the error's name.

        Half of the limit and not of the batch: the last batch may be far smaller than those that
        there was memory for, and others use a GPU, too. Where it is cut as before, it is tried
        again. To be called where the error and what it holds is gone.
        """
        self.tokens = max(1, self.tokens // 2)
        self._devices = ()
        give_back_memory()
        self._tell(f"out of memory ({problem}) at {tokens} tokens, goes on with {self.tokens}")

    def halve_rows(self, rows: int, problem: str) -> None:
        """Memory ran out over so many answers side by side; as `halve`."""
        self.rows = max(1, rows // 2)
        self._devices = ()
        give_back_memory()
        self._tell(
            f"out of memory ({problem}) with {rows} answers at once, goes on with {self.rows}"
        )

    def stay(self, problem: str, told: str) -> None:
        """Memory ran out over what no limit makes smaller; as `halve`."""
        self._devices = ()
        give_back_memory()
        self._tell(f"out of memory ({problem}) over {told}")

    def _watched(self) -> list[int]:
        """Bytes held on each device now; from here on their peak is counted anew."""
        import torch

        for device in self._devices:
            torch.cuda.reset_peak_memory_stats(device)
        return [torch.cuda.memory_allocated(device) for device in self._devices]

    def _grow(self, tokens: int, held: Sequence[int], share: float) -> None:
        """To what fits by the memory that a batch of `tokens` took."""
        import torch

        fits = [
            share * free_memory(device) * tokens / max(1, peak - before)
            for device, before in zip(self._devices, held, strict=True)
            if (peak := torch.cuda.max_memory_allocated(device))
        ]
        if fits:
            found = min(MOST, GROWTH * tokens, int(min(fits)))
            # The rest is cut anew only where that gains something.
            if found >= 1.25 * self.tokens:
                self.tokens = found


def bands(lengths: Sequence[int], tokens: int) -> Iterator[slice]:
    """Batches of rows that are padded to the longest one.

    Args:
        lengths: tokens of each row, the longest first.
        tokens: the most of a batch with its padding, but that every batch has a row.
    """
    start = 0
    while start < len(lengths):
        longest = lengths[start]
        stop = start + max(1, tokens // max(1, longest))
        while lengths[min(stop, len(lengths)) - 1] < FULL * longest:
            stop = min(stop, len(lengths)) - 1
        yield slice(start, min(stop, len(lengths)))
        start = stop


def free_memory(device: torch.device) -> int:
    """Bytes of a GPU that can still be taken, those that this process holds and does not use
    included."""
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; on a CPU it is no class of its own."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in MESSAGES)


def _too_large(tokens: int, error: Exception) -> RuntimeError:
    """The error for a piece that memory has no room for."""
    import torch

    why = (str(error).strip().splitlines() or [""])[0]
    return torch.OutOfMemoryError(
        f"no memory for {tokens} tokens that cannot be read in parts: {why}"
    )


def give_back_memory() -> None:
    """Let others have what this process holds of GPUs and does not use."""
    import torch

    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
