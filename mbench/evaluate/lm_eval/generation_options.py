"""The `generation_kwargs` of a task: what they mean, and which are refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lm_eval.models.utils import normalize_gen_kwargs
from transformers import GenerationConfig

from mbench.core.errors import TaskError, unknown

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

LIMITS = frozenset({"max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"})
"""lm-eval's names for the most tokens of an answer."""

GENERATED = 256
"""Tokens that lm-eval generates where a task sets no limit."""

DRAWING = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "top_h",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
)
"""Options of transformers that shape what tokens are drawn from; without `do_sample` they do
nothing."""

ALONE = ("num_beams", "repetition_penalty", "no_repeat_ngram_size")
"""Options that see the padding of a batch, or mix up its rows: where one is set, answers are
generated one at a time."""

OTHERS = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "early_stopping",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "length_penalty",
    "min_new_tokens",
    "renormalize_logits",
    "sequence_bias",
    "suppress_tokens",
)
"""Options of transformers that treat every row of a batch by itself."""

KNOWN = frozenset(
    {"until", "do_sample", "num_return_sequences", *LIMITS, *DRAWING, *ALONE, *OTHERS}
)

HARMLESS = frozenset(
    {
        *("bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "max_length"),
        *("max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "min_p", "use_cache"),
        *("return_dict_in_generate", "output_attentions", "output_hidden_states"),
        *("_from_model_config", "trust_remote_code"),
    }
)
"""Settings of a model's generation_config.json without effect on the likeliest tokens that a
caller who gives a limit takes."""

INSTEAD = {
    "max_length": "counts the padding of a batch too: write max_gen_toks",
    "min_length": "counts the padding of a batch too: write min_new_tokens",
    "max_time": "makes answers depend on the machine: write max_gen_toks",
    "stop_strings": "is not lm-eval's: write until",
}
"""Options that exist and are refused, with what to write."""


@dataclass(frozen=True)
class Options:
    """How the answer of an instance is generated."""

    limit: int
    """Most tokens."""
    limit_given: bool
    """Whether the task or the suite says so; else it is lm-eval's default."""
    sampled: bool
    """Whether tokens are drawn; else the most likely ones are taken."""
    until: tuple[str, ...]
    """Texts that end it, besides the end of the text."""
    drawing: tuple[tuple[str, Any], ...]
    """What shapes the draws, with transformers' default of `top_k`, which lm-eval leaves on."""
    useless: tuple[str, ...]
    """Options for drawing that are set although nothing is drawn."""
    plain: bool
    """Whether the likeliest tokens are taken, and nothing but a limit and texts that end it is
    asked for."""
    alone: bool
    """Whether it cannot be in a batch with others."""
    together: str
    """Equal for instances that may be in one batch."""


def options_of(name: str, instance: Instance) -> Options:
    """Read and check an instance's `generation_kwargs`.

    Raises:
        TaskError: an option that does not exist, makes answers depend on the batch, or is not
            supported.
    """
    given: dict[str, Any] = instance.args[1]
    where = f"task {name!r}: generation_kwargs"
    for option in given:
        if option in INSTEAD:
            raise TaskError(f"{where}: {option} {INSTEAD[option]}")
        if option not in KNOWN:
            raise TaskError(f"{where}: {unknown('option', option, KNOWN)}")
    options = normalize_gen_kwargs(given, GENERATED)
    _check(where, given, options)
    sampled = options["do_sample"]
    defaults = GenerationConfig._get_default_generation_params()
    set_ = {o: given[o] for o in DRAWING if given.get(o) not in (None, defaults.get(o))}
    if given.get("temperature") == 0:
        set_.pop("temperature")
    drawing = {"temperature": given.get("temperature"), "top_k": defaults["top_k"], **set_}
    alone = any(given.get(o) not in (None, defaults.get(o)) for o in ALONE)
    together = json.dumps(given, sort_keys=True, default=str)
    return Options(
        limit=options["max_gen_toks"],
        limit_given=any(given.get(option) is not None for option in LIMITS),
        sampled=sampled,
        until=tuple(options["until"]),
        drawing=tuple(drawing.items()) if sampled else (),
        useless=() if sampled else tuple(set_),
        plain=not sampled and not any(given.get(o) is not None for o in (*ALONE, *OTHERS)),
        alone=alone,
        together=together,
    )


def decides_alone(config: GenerationConfig) -> bool:
    """Whether a model's own settings leave the likeliest token to be the next one.

    Some publish a penalty on repetitions, or tokens that are never generated.
    """
    return not set(config.to_diff_dict()) - HARMLESS


def _check(where: str, given: dict[str, Any], options: dict[str, Any]) -> None:
    sampled = options.get("do_sample")
    if not isinstance(sampled, bool):
        raise TaskError(f"{where}: do_sample must be true or false, not {sampled!r}")
    if sampled and not float(given.get("temperature") or 0) > 0:
        raise TaskError(f"{where}: do_sample: true needs a temperature above 0")
    if sampled and given.get("num_beams", 1) != 1:
        raise TaskError(f"{where}: beams are not drawn: write do_sample: false, or num_beams: 1")
    if given.get("num_return_sequences", 1) != 1:
        raise TaskError(f"{where}: one answer is generated at a time: write repeats instead")
    if "" in options["until"]:
        raise TaskError(f"{where}: until has an empty text, which ends all answers at once")
    if options["max_gen_toks"] < 1:
        raise TaskError(f"{where}: no token is to be generated ({options['max_gen_toks']})")
