"""Prints the README's shell commands as one script; its Python block becomes a file first.

A code block `python` starts with a comment that names its file, as in `# frequency.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def main() -> None:
    """Write Python blocks to the working directory, print shell blocks in order."""
    for language, body in BLOCK.findall(Path("README.md").read_text(encoding="utf-8")):
        if language == "python":
            name = body.splitlines()[0].removeprefix("#").strip()
            Path(name).write_text(body, encoding="utf-8")
        elif language == "sh":
            print(body)


if __name__ == "__main__":
    main()
