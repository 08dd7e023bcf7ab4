"""The command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from helpers.places import ROOT


def call(*words: str, store: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mbench", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MBENCH_STORE": str(store)},
        capture_output=True,
        text=True,
        timeout=900,
    )
