"""What a suite asks to be evaluated, as plain values: importing this costs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mbench.core.errors import SuiteError


@dataclass(frozen=True)
class TaskSpec:
    """A task, group or tag of lm-eval."""

    name: str
    """What results call it."""
    task: str
    """lm-eval's name of it."""
    directories: tuple[Path, ...] = ()
    """Folders of local task files; their tasks go before built-in tasks of the same name."""
    limit: int | None = None
    """The first so many items of every task; None: all."""
    num_fewshot: int | None = None
    """Solved examples in the prompt; None: as the task itself says."""
    max_gen_toks: int | None = None
    """Most tokens generated per item; None: as the task itself says."""


@dataclass(frozen=True)
class PerplexitySpec:
    """Perplexity on a text, by one of three protocols that give different figures.

    - `sliding`: the documents joined by `join`; windows of `window` tokens start every `stride`
      tokens, and each scores only the tokens that the one before it did not reach. The last window
      may be shorter.
    - `gptq`: the documents joined by `join`; disjoint windows, in each of which the first token is
      context only; a last incomplete window is left out.
    - `document`: every document by itself in disjoint windows of `window` predictions, each after
      one token of context; documents of a single token have nothing to score.

    If the tokenizer by default begins a text with its BOS token, so does every text here (in the
    first two protocols there is one text), and BOS is context only. Without BOS, the first token of
    a text is. No other special tokens are added.
    """

    name: str
    protocol: Literal["sliding", "gptq", "document"] = "sliding"
    window: int = 2048
    stride: int | None = None
    """Only for `sliding`, and there less than `window`."""
    join: str = "\n\n"
    max_windows: int | None = None
    """The first so many windows; None: all."""

    def __post_init__(self) -> None:
        if self.window < 2:
            raise SuiteError(f"perplexity {self.name!r}: a window of {self.window} scores nothing")
        if self.protocol != "sliding" and self.stride is not None:
            raise SuiteError(f"perplexity {self.name!r}: protocol {self.protocol!r} has no stride")
        if self.protocol == "sliding" and not 1 <= (self.stride or 0) < self.window:
            # With a stride of a whole window, the first token of each would have no context.
            raise SuiteError(
                f"perplexity {self.name!r}: protocol 'sliding' needs a stride from 1 to "
                f"{self.window - 1}, one less than the window, not {self.stride}"
            )
