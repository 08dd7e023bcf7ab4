"""Prints the shell commands of documents as one script; blocks of Python become files first.

A command that several documents give is printed once. A code block `python` starts with a comment
that names its file, as in `# frequency.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

DOCUMENTS = ("README.md", "docs/quickstart.md", "docs/results.md")

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def main() -> None:
    """Write Python blocks to the working directory, print shell blocks in order."""
    text = "\n".join(Path(document).read_text(encoding="utf-8") for document in DOCUMENTS)
    commands: dict[str, None] = {}
    for language, body in BLOCK.findall(text):
        if language == "python":
            name = body.splitlines()[0].removeprefix("#").strip()
            Path(name).write_text(body, encoding="utf-8")
        elif language == "sh":
            commands |= dict.fromkeys(body.replace("\\\n", " ").replace(" && ", "\n").splitlines())
    print("\n".join(commands))


if __name__ == "__main__":
    main()
