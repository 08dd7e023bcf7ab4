"""A calibration corpus: the sequences of one text, or of several that are mixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mbench.core.suite_inputs import CorpusSpec
from mbench.storage.texts import Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mbench.moe.calibration import TokenSequences


@dataclass(frozen=True)
class CorpusPart:
    """One text of a corpus."""

    name: str
    """Of the suite's corpus that says how it is cut."""
    text: Text
    spec: CorpusSpec
    """How it is cut here, with the number and length of sequences that a mix takes of it; `chat` is
    that of the conversations, None for texts."""


@dataclass(frozen=True)
class Corpus:
    """A calibration corpus of the suite, which may be mixed of others."""

    name: str
    parts: tuple[CorpusPart, ...]
    """One, or those of a mix, in the suite's order; all have sequences of the same length."""

    @property
    def sequences(self) -> int:
        """Of all parts."""
        return sum(part.spec.sequences for part in self.parts)

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        return self.parts[0].spec.length

    @property
    def tokens(self) -> int:
        """At most: sequences of a single document each may be shorter."""
        return self.sequences * self.length

    def cut(self, tokenizer: PreTrainedTokenizerBase) -> TokenSequences:
        """Every part, cut by itself, and interleaved (see `interleaved`).

        Raises `CorpusError` for a part whose text is too short.
        """
        return self.joined(self.cut_parts(tokenizer))

    def cut_parts(self, tokenizer: PreTrainedTokenizerBase) -> list[TokenSequences]:
        """Every part, cut by itself; raises as `cut`."""
        # Load transformers, which a plan need not wait for.
        from mbench.moe.calibration import sequences
        from mbench.moe.conversations import sequences_of_conversations

        return [
            (sequences if part.spec.source.messages is None else sequences_of_conversations)(
                part.text, part.spec, tokenizer
            )
            for part in self.parts
        ]

    def joined(self, cut: Sequence[TokenSequences]) -> TokenSequences:
        """The sequences of all parts, interleaved."""
        from mbench.moe.calibration import TokenSequences

        if len(cut) == 1:
            return cut[0]
        joined = TokenSequences(
            np.concatenate([each.ids for each in cut]),
            np.concatenate([each.lengths for each in cut]),
        )
        return joined[interleaved([len(each.ids) for each in cut])]


def interleaved(counts: Sequence[int]) -> np.ndarray:
    """The order in which sequences of several parts, listed part by part, are taken.

    Sequence j of a part with n stands at (j + 1/2) / n of the whole, the earlier part first where
    two meet: so every run of neighbours has the parts nearly in the proportion of the whole (of two
    to within one sequence, of more to within two or three), and each part keeps its own order.

    Args:
        counts: sequences of each part.

    Returns:
        int64 [sum of counts], a permutation.
    """
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    return np.argsort(places, kind="stable")
