"""Further processes that evaluate masks of the same run; the store is all they share."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from mbench.plan.cells import Plan


class Helpers:
    """Starts `mbench run ... --helper N` with this process's own arguments, and ends them."""

    def __init__(self, plan: Plan) -> None:
        """Nothing is started yet."""
        self._count = plan.suite.processes - 1
        self._threads = 0
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start as many as the suite asks for, unless a GPU does the work."""
        import torch

        self.end()
        if not self._count or torch.cuda.is_available():
            return
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)
        for number in range(1, self._count + 1):
            self._running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "mbench", *sys.argv[1:], "--helper", str(number)],
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )

    def end(self) -> None:
        """End those that still run; what they stored is whole. Their threads are free again."""
        if self._threads:
            import torch

            torch.set_num_threads(self._threads)
            self._threads = 0
        for process in self._running:
            process.terminate()
            process.wait()
        self._running.clear()

    def __enter__(self) -> Self:
        """Nothing to do."""
        return self

    def __exit__(self, *_: object) -> None:
        """End those that still run."""
        self.end()
