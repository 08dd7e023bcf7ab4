"""A checkpoint's files and the hash of their content; needs no torch, so that plans are quick."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from mbench.core.errors import ModelNotFound
from mbench.storage.file_hash import file_hash
from mbench.storage.hub import commits
from mbench.storage.hub.answers import HubRefusal
from mbench.storage.store import Store

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
HINT = "give a local directory with --model NAME=PATH; `mbench run quickstart` needs no hub"


def local_directory(path_or_id: str) -> Path | None:
    """Return the directory, or None where the text is a model id of the Hugging Face hub.

    Raises `ModelNotFound` for a path that is not a directory.
    """
    path = Path(path_or_id).expanduser()
    if path.is_dir():
        return path
    is_id = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path_or_id) and not path_or_id.startswith(".")
    if path.exists() or not is_id:
        raise ModelNotFound(f"model {path_or_id}: no such directory")
    return None


def config_file(directory: Path) -> Path:
    """Return the model's config.json; raises `ModelNotFound` if it is not there."""
    path = directory / "config.json"
    if not path.is_file():
        raise ModelNotFound(f"model {directory}: config.json is missing")
    return path


def weight_files(directory: Path) -> list[Path]:
    """Return the weight files that would be loaded, sorted by name.

    Raises `ModelNotFound` if there are none or if the index names files that are missing.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = directory / f"{name}.index.json"
        if (directory / name).is_file():
            return [directory / name]
        if index.is_file():
            try:
                parts = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            except (ValueError, KeyError, AttributeError, TypeError):
                raise ModelNotFound(
                    f"model {directory}: {index.name} is not an index of weight files"
                ) from None
            missing = [part for part in parts if not (directory / part).is_file()]
            if missing:
                raise ModelNotFound(
                    f"model {directory}: {len(missing)} of {len(parts)} weight files are missing, "
                    f"e.g. {missing[0]}"
                )
            return [index, *(directory / part for part in parts)]
    raise ModelNotFound(
        f"model {directory}: no weights (neither model.safetensors nor pytorch_model.bin, nor an"
        " index of them)"
    )


def tokenizer_files(directory: Path) -> list[Path]:
    """Return the tokenizer's files; raises `ModelNotFound` if there is no vocabulary."""
    if not any((directory / name).is_file() for name in VOCABULARIES):
        raise ModelNotFound(f"model {directory}: no tokenizer (none of {', '.join(VOCABULARIES)})")
    return [directory / name for name in TOKENIZER_FILES if (directory / name).is_file()]


def model_key(
    path_or_id: str,
    revision: str | None = None,
    *,
    remote_code: bool = False,
    store: Store | None = None,
) -> str:
    """Return what identifies the model's content: a hash of its files, or the hub's commit.

    The hash covers every byte of a directory's configuration, tokenizer and weights, and not its
    path; with `remote_code` (whether the model's own code may run) its Python files too. `store`
    caches the hashes of files, so that weights are read once and not for every plan.
    Raises `ModelNotFound` if files are missing, or if the hub is needed and cannot be reached.
    """
    suffix = ":remote-code" if remote_code else ""
    directory = local_directory(path_or_id)
    if directory is None:
        return f"commit:{model_commit(path_or_id, revision)}{suffix}"
    generation = directory / "generation_config.json"
    files = [config_file(directory), *tokenizer_files(directory), *weight_files(directory)]
    files += [generation] if generation.is_file() else []
    files += directory.rglob("*.py") if remote_code else []
    total = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.relative_to(directory).as_posix()):
        name = path.relative_to(directory).as_posix()
        total.update(f"{name} {file_hash(path, store)}\n".encode())
    return f"sha256:{total.hexdigest()}{suffix}"


def model_commit(repository: str, revision: str | None) -> str:
    """Return the commit that `revision` of a model on the hub stands for; see `commits.commit`."""
    try:
        return commits.commit(repository, revision, "model", "config.json")
    except HubRefusal as error:
        raise ModelNotFound(f"model {repository}: {error}; {HINT}") from None
