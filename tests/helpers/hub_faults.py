"""How a hub fails: what it answers in place of the right thing, by the fault's name."""

from __future__ import annotations

import json
import random

PAGE = b"<html><body>Welcome to the network. Please log in.</body></html>"

REFUSALS: dict[str, tuple[int, dict[str, str]]] = {
    "401": (401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
    "401 gated": (401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}),
    "401 unknown": (401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Unknown"}),
    "403": (403, {"X-Error-Message": "You lack \x1b[31mthe right\x1b[0m, hf_abcdefghijkl"}),
    "403 gated": (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Ask for access"}),
    "404 repository": (404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Unknown"}),
    "404 revision": (404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "No such rev"}),
    "404 file": (404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "No such file"}),
    "429": (429, {}),
    "429 for long": (429, {"Retry-After": "86400"}),
    "429 window": (429, {}),
    "500": (500, {}),
    "502": (502, {"Content-Type": "text/html"}),
    "503": (503, {"Content-Type": "text/html"}),
}

IN_BODY = ("cut", "reset", "short", "corrupt", "other bytes", "empty")

FAULTS = (
    *REFUSALS, *IN_BODY, "page", "hang", "close", "no json", "wrong json", "slow", "circle",
    "elsewhere", "newest",
)  # fmt: skip


def refusal(name: str, retry_after: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a refusal; `retry_after` is what a 429 says."""
    status, own = REFUSALS[name]
    if name == "429":
        own = {"Retry-After": retry_after}
    if name == "429 window":
        own = {"RateLimit": f'"api";r=0;t={retry_after}'}
    is_html = "html" in own.get("Content-Type", "")
    body = PAGE if is_html else json.dumps({"error": own.get("X-Error-Message", name)}).encode()
    return status, {"Content-Type": "application/json", **own}, body


def spoilt(fault: str, content: bytes) -> bytes:
    """What comes in place of a file or of JSON, as a whole answer; of other faults the content."""
    middle = len(content) // 2
    if fault == "corrupt":
        return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    changed = {
        "short": content[:middle],
        "other bytes": random.Random(0).randbytes(len(content)),
        "empty": b"",
        "no json": b'{"sha": ',
        "wrong json": b'{"message": ["unexpected"]}',
    }
    return changed.get(fault, content)
