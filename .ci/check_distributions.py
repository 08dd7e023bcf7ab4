"""Checks that the wheel and the sdist of a folder hold all that they should, and nothing else.

`python .ci/check_distributions.py DIST`, from the checkout that they were built from.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

PACKAGES = {
    "mbench/": "mbench/",
    "plugins/": "mbench_plugins/",
    "suites/": "mbench_suites/",
    "reports/published/": "mbench_published/",
}
"""Folder of the repository -> the package that it is installed as."""

BESIDE = {
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "README.md"),
    *("constraints.txt", "pyproject.toml", "setup.cfg"),
}
"""What the sdist has beside the packages."""


def main(folder: Path) -> None:
    """Exit with a line for every file that is missing or too many."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    tracked = subprocess.run(["git", "ls-files"], check=True, capture_output=True, text=True)
    sources = {
        path: package + path.removeprefix(place)
        for path in tracked.stdout.splitlines()
        for place, package in PACKAGES.items()
        if path.startswith(place)
    }
    with zipfile.ZipFile(wheel) as archive:
        installed = {name for name in archive.namelist() if ".dist-info/" not in name}
    with tarfile.open(sdist) as archive:
        names = [Path(*Path(m.name).parts[1:]).as_posix() for m in archive if m.isfile()]
    made = {name for name in names if name == "PKG-INFO" or name.startswith("mbench.egg-info/")}
    problems = [
        *_differences(wheel, installed, set(sources.values())),
        *_differences(sdist, set(names) - made, {*sources, *BESIDE}),
    ]
    sys.exit("\n".join(problems) or None)


def _differences(path: Path, held: set[str], expected: set[str]) -> list[str]:
    return [
        *(f"{path.name}: {name} is missing" for name in sorted(expected - held)),
        *(f"{path.name}: {name} does not belong there" for name in sorted(held - expected)),
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
