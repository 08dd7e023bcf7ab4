"""Requests to the Hugging Face hub: a repository's commit, its files, and why the hub refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mbench.storage.hub.answers import HubRefusal, refusal


def commit(
    repository: str, revision: str | None, kind: Literal["model", "dataset"], probe: str
) -> str:
    """Return the commit that `revision` (None: the default branch) of a repository stands for.

    Raises `HubRefusal` if the hub refuses or cannot be reached and the local cache has no snapshot
    with the file `probe`.
    """
    # Ask the hub first: loading would also prefer its answer to an older snapshot in the cache.
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    reason = "the Hugging Face hub cannot be reached"
    if not constants.HF_HUB_OFFLINE:
        try:
            info = HfApi().repo_info(repository, revision=revision, repo_type=kind, timeout=10)
            if info.sha:
                return info.sha
        except HfHubHTTPError as error:
            reason = refusal(error) or reason
        except (OSError, OfflineModeIsEnabled):
            pass
        except Exception as error:
            # The hub's client lets the exceptions of its HTTP library through, whichever it is.
            if not type(error).__module__.startswith(("httpx", "httpcore", "requests")):
                raise
    cached = try_to_load_from_cache(repository, probe, revision=revision, repo_type=kind)
    if isinstance(cached, str):
        return Path(cached).parent.name
    raise HubRefusal(f"{reason} and it is not in the local cache")


def snapshot(repository: str, commit: str, patterns: list[str]) -> Path:
    """Return a folder with the files of a model's commit that match, downloaded where needed.

    Raises `HubRefusal` if they are neither in the local cache nor can be downloaded.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(repository, revision=commit, allow_patterns=patterns))
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = refusal(error) or "the Hugging Face hub cannot be reached"
        raise HubRefusal(f"{reason} and commit {commit} is not in the local cache") from None
