"""A checkpoint's tokenizer: loaded, compared with the embedding, and where it puts BOS."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import AutoTokenizer

from mbench.core.errors import MOST_CHARACTERS, CorpusError, MbenchError, UnsupportedModel
from mbench.moe import deepseek
from mbench.moe.config import Checkpoint, read_config
from mbench.moe.load_errors import legible
from mbench.storage.checkpoint_files import TOKENIZER_FILES, VOCABULARIES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = "The 3 cafés, ¿qué? 日本語 🙂\n\tdef f(x): return 'x'\x00"
"""A text that needs many kinds of tokens."""


def tokenizer_of(
    folder: str, rows: int, *, trust_remote_code: bool = False
) -> tuple[PreTrainedTokenizerBase, str]:
    """The tokenizer of a model that is not loaded; see `load_tokenizer` and `read_config`."""
    with legible(folder):
        return load_tokenizer(read_config(folder, trust_remote_code), rows)


def load_tokenizer(checkpoint: Checkpoint, rows: int) -> tuple[PreTrainedTokenizerBase, str]:
    """Load a tokenizer whose every token the model has an embedding for.

    It pads with a token that the model has too: padding is masked, so that which one it is changes
    no figure. In words, what it pads with in place of its own; empty where that is fine.

    Args:
        checkpoint: whose tokenizer.
        rows: of the embedding; ids from there on have none.

    Raises:
        UnsupportedModel: it cannot be loaded, or gives ids that the model does not have.
        OSError: its files are missing.
    """
    place = checkpoint.place
    _refuse_unreadable(Path(place))
    tokenizer: PreTrainedTokenizerBase
    try:
        if checkpoint.is_deepseek:
            tokenizer = deepseek.load_tokenizer(place)
        else:
            # Without the configuration it would read config.json once more, as it is.
            tokenizer = AutoTokenizer.from_pretrained(
                place, config=checkpoint.config, **checkpoint.code
            )
        pad = tokenizer.pad_token_id
        used = {*tokenizer.get_vocab().values(), *tokenizer(PROBE)["input_ids"]} - {pad}
    except (MbenchError, OSError):
        raise
    except Exception as error:
        # Damaged files surface as whatever their readers raise, a bare `Exception` included.
        cause = f"{type(error).__name__}: {_flat(error)}"
        raise UnsupportedModel(
            f"model {place}: its tokenizer cannot be loaded ({cause})"
        ) from error
    if not used:
        raise UnsupportedModel(f"model {place}: its tokenizer has no tokens")
    if max(used) >= rows:
        token = tokenizer.convert_ids_to_tokens(max(used))
        raise UnsupportedModel(
            f"model {place}: its tokenizer has token ids up to {max(used)} ({token!r}), but the"
            f" embedding has {rows} rows, for ids up to {rows - 1}"
        )
    if pad is None:
        _pad_with_a_valid_token(tokenizer, rows)
        return tokenizer, ""
    if 0 <= pad < rows:
        return tokenizer, ""
    own = f"{tokenizer.pad_token!r} has id {pad}, but the embedding has {rows} rows"
    tokenizer.pad_token = None
    _pad_with_a_valid_token(tokenizer, rows)
    instead = (
        "" if tokenizer.pad_token is None else f": {tokenizer.pad_token!r} is used, and masked"
    )
    return tokenizer, own + instead


def difference(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, *, chat: bool) -> str:
    """In words, what of two tokenizers gives other tokens; empty where nothing does.

    How they pad is no difference. With `chat` their chat templates must be the same, too.
    """
    if one.get_vocab() != other.get_vocab():
        return "another vocabulary"
    for token in ("bos_token_id", "eos_token_id"):
        if getattr(one, token) != getattr(other, token):
            return f"{token} {getattr(one, token)} and {getattr(other, token)}"
    if one.is_fast and other.is_fast:
        steps, others = _steps(one), _steps(other)
        for step in sorted(steps.keys() | others.keys()):
            if steps.get(step) != others.get(step):
                return f"another {step}"
    elif type(one) is not type(other):
        return f"{type(one).__name__} and {type(other).__name__}"
    if one(PROBE)["input_ids"] != other(PROBE)["input_ids"]:
        return "other tokens of the same text"
    if chat and one.chat_template != other.chat_template:
        return "another chat template"
    return ""


def _steps(tokenizer: Any) -> dict[str, Any]:
    """What the library of fast tokenizers does with a text, by the name of the step."""
    steps: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return {name: step for name, step in steps.items() if name not in ("padding", "truncation")}


def _refuse_unreadable(directory: Path) -> None:
    """Name the file that is no JSON, or the package that reads the only vocabulary there is."""
    files = [path for path in (directory / name for name in TOKENIZER_FILES) if path.is_file()]
    for path in files:
        if path.suffix != ".json":
            continue
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise UnsupportedModel(
                f"model {directory}: {path.name} is not JSON ({_flat(error)})"
            ) from None
        if not isinstance(content, dict):
            raise UnsupportedModel(f"model {directory}: {path.name} is not a JSON object")
    vocabularies = [path for path in files if path.name in VOCABULARIES]
    if [path.name for path in vocabularies] != ["tokenizer.model"]:
        return
    # SentencePiece's format begins with a field of a protocol buffer, tiktoken's is text.
    with vocabularies[0].open("rb") as file:
        package = "sentencepiece" if file.read(1) == b"\n" else "tiktoken"
    if importlib.util.find_spec(package) is None:
        raise UnsupportedModel(
            f"model {directory}: its tokenizer.model is read by the package {package}, which is not"
            " installed"
        )


def _flat(error: Exception) -> str:
    return " ".join(str(error).split())[:MOST_CHARACTERS]


def _pad_with_a_valid_token(tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Choose a special token, in lm-eval's order: an ordinary one would be left out of answers."""
    for name in ("unk_token", "eos_token", "bos_token"):
        token = getattr(tokenizer, f"{name}_id")
        if token is not None and 0 <= token < rows:
            tokenizer.pad_token = getattr(tokenizer, name)
            return
    if len(tokenizer) < rows:
        tokenizer.add_special_tokens({"pad_token": "<|pad|>"})


def refuse_unknown(name: str, ids: np.ndarray, rows: int) -> None:
    """Raise `CorpusError` for token ids [...] of a text that the embedding has no rows for.

    A tokenizer whose padding token is one of them gives it where a text spells it out.
    """
    if ids.max(initial=0) >= rows:
        raise CorpusError(
            f"{name}: the text has the token id {ids.max()}, but the embedding has {rows} rows"
        )


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer by default begins a text with its BOS token."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a")["input_ids"][:1] == [bos]


def bos_at(
    tokenizer: PreTrainedTokenizerBase, asked: str | None, usual: str
) -> tuple[str, int | None]:
    """Where BOS stands, and its id; `none` has no id.

    Args:
        tokenizer: of the model.
        asked: by the suite; None: as `usual` if the tokenizer by default begins a text with BOS,
            else `none`.
        usual: `document`, `window` or `text`.

    Raises:
        CorpusError: BOS is asked of a tokenizer that has none.
    """
    where = asked or (usual if adds_bos(tokenizer) else "none")
    if where == "none":
        return where, None
    if tokenizer.bos_token_id is None:
        raise CorpusError(f"`bos: {where}` is asked for, but the tokenizer has no BOS token")
    return where, int(tokenizer.bos_token_id)
