"""The chart compiler, in a process of its own, which may die without taking a run with it.

Its JavaScript engine comes with its package and needs no network. It reserves far more addresses
than it uses memory, which limits such as `ulimit -v` forbid.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from mbench.core.child_process import end_with_parent_on_linux
from mbench.core.errors import one_line

SECONDS = 60.0
"""The longest that one chart may take; all charts of a page take a few."""

RESERVED = 64
"""GB of addresses that the engine asks for."""


class NoPicture(Exception):
    """A chart that could not be compiled; its text says why."""


class Compiler:
    """Compiles one chart after another; once its process has failed, none."""

    def __init__(self) -> None:
        """Nothing is started yet."""
        self._process: subprocess.Popen[str] | None = None
        self.problem = ""
        """Why the first chart since the start has no picture; empty if all have one."""

    def start(self, *, again: bool = False) -> None:
        """Start the process; `again`: another one, if there was a problem."""
        if self._process is not None and not (again and self.problem):
            return
        self.stop()
        self.problem = ""
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            self.problem = f"the chart compiler cannot be started: {error.strerror or error}"

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def compile(self, spec: Mapping[str, Any]) -> str:
        """SVG text of a Vega-Lite specification; raises `NoPicture`."""
        process = self._process
        if process is None or process.poll() is not None:
            self.problem = self.problem or _reason(process)
            raise NoPicture(self.problem)
        answer: dict[str, str] = {}
        timer = threading.Timer(SECONDS, process.kill)
        timer.start()
        try:
            if process.stdin is not None and process.stdout is not None:
                process.stdin.write(json.dumps(spec) + "\n")
                process.stdin.flush()
                answer = json.loads(process.stdout.readline() or "{}")
        # Whatever it wrote before it died.
        except (OSError, ValueError):
            answer = {}
        finally:
            late = not timer.is_alive()
            timer.cancel()
        if "svg" in answer:
            return answer["svg"]
        if not answer:
            _end(process, patience=10.0)
        reason = answer.get("error") or _reason(process, late=late)
        self.problem = self.problem or reason
        raise NoPicture(reason)


def _end(process: subprocess.Popen[str], patience: float = 0.0) -> None:
    """End a process and forget it; `patience`: seconds in which it may end by itself."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _reason(process: subprocess.Popen[str] | None, *, late: bool = False) -> str:
    """Why the process gives no answer."""
    if late:
        return f"the chart compiler gave no answer within {SECONDS:.0f} s"
    allowed = _addresses()
    if allowed is not None:
        return (
            f"the chart compiler reserves {RESERVED} GB of addresses, and `ulimit -v` allows"
            f" {allowed / 2**30:.3g} GB"
        )
    status = None if process is None else process.returncode
    if status is not None and status < 0:
        return f"the chart compiler was ended by {signal.Signals(-status).name}"
    return f"the chart compiler ended with status {status}"


def _addresses() -> int | None:
    """Bytes of addresses that a process may have, if too few; None where that is not the reason."""
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[1]
    few = limit != resource.RLIM_INFINITY and limit < RESERVED * 2**30
    return limit if few else None


def _allow_addresses() -> None:
    """Reserved addresses cost nothing: of the two limits, only the hard one counts."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def serve() -> None:
    """Answer every line of standard input, a specification, with a line: `svg` or `error`."""
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        # They are meant for the run, whose report still needs the charts; it ends with its input.
        signal.signal(number, signal.SIG_IGN)
    end_with_parent_on_linux()
    _allow_addresses()
    with open(os.dup(1), "w", encoding="utf-8", buffering=1) as answers:
        os.dup2(2, 1)  # whatever the engine prints is no answer
        for line in sys.stdin:
            try:
                import vl_convert

                answer = {"svg": vl_convert.vegalite_to_svg(json.loads(line))}
            except Exception as error:
                answer = {"error": one_line(error)}
            print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    serve()
