"""A Ray cluster of machines with one CPU each, all of them here, in processes of their own.

`python -m helpers.ray_cluster` prints its address, and does what the lines of its standard input
say, each with an answer: `fill` takes all CPUs until `free`, `kill` ends the newest machine as one
that is gone, `add` adds one, `odd` one with another version of torch,
`stun` has what keeps the machines together hang until `wake`, `behead` ends the machine where that
is. The end of standard input ends the cluster.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

from helpers.held import LONG
from helpers.places import ROOT

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT / "tests"),
    "OMP_NUM_THREADS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # On a machine whose memory others fill, it would end actors.
    "RAY_memory_monitor_refresh_ms": "0",
    # Seconds after which it ends a process in its own way, whose head is lost: 60 are few on a busy
    # machine for what a run does until it ends itself.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "300",
}


class RayCluster:
    """The cluster as tests see it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "helpers.ray_cluster"],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.address = self._process.stdout.readline().strip()
        """Empty where Ray starts no cluster on this machine."""

    def tell(self, *words: str) -> None:
        """Have it do something, and wait until it is done."""
        for word in words:
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()
            assert self._process.stdout.readline().strip() == word

    def end(self) -> None:
        self._process.communicate(timeout=LONG)


@contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    cluster = RayCluster()
    try:
        yield cluster
    finally:
        cluster.end()


def losing_an_answer() -> None:
    """Have the third answer lost, as if its machine had gone before it was fetched."""
    import ray

    from mbench.run.ray_actor import Answered

    get, answers = ray.get, []

    def losing(awaited, **options):
        found = get(awaited, **options)
        if isinstance(found, Answered):
            answers.append(awaited)
            if len(answers) == 3:
                raise ray.exceptions.ObjectLostError(awaited.hex(), awaited.owner_address(), "")
        return found

    ray.get = losing


def impatient() -> None:
    """Have a run end soon after the machine that keeps the cluster together, which is lost between
    the look whether it answers and what it is asked then."""
    from mbench.run import ray_cluster

    ray_cluster.SILENCE = 1.0
    answers, late = ray_cluster.head_takes_connections, [True]
    ray_cluster.head_takes_connections = lambda: answers() or (late and late.pop())


def hasty() -> None:
    """Have a run take actors for slow soon."""
    from mbench.run import ray_executor

    ray_executor.LEAST, ray_executor.SLOW = 1.0, 2.0


def another_version(folder: str) -> mock._patch_dict:
    """Processes that begin within the block, and theirs, have another version of torch."""
    (Path(folder) / "sitecustomize.py").write_text(
        "from mbench.storage import distributions\n"
        "version_of = distributions.version_of\n"
        "distributions.version_of = lambda name: '1' if name == 'torch' else version_of(name)\n"
    )
    path = f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return mock.patch.dict(os.environ, PYTHONPATH=path)


def processes_below(process: int) -> list[int]:
    """The children of a process."""
    command = ["ps", "-o", "pid=", "--ppid", str(process)]
    # With status 1 where there are none.
    return [*map(int, subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout.split())]


def main() -> None:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    others = [cluster.add_node(num_cpus=1)]
    folder = tempfile.TemporaryDirectory()
    print(cluster.address, flush=True)
    for line in sys.stdin:
        match line.strip():
            case "fill":
                ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
                holder = ray.remote(num_cpus=1)(type("Holder", (), {"hold": lambda self: None}))
                holders = [holder.remote() for _ in range(1 + len(others))]
                ray.get([each.hold.remote() for each in holders])
            case "free":
                ray.shutdown()
            case "kill":
                machine = others.pop()
                actors = processes_below(machine.all_processes["raylet"][0].process.pid)
                cluster.remove_node(machine, allow_graceful=False)
                for each in actors:  # they would go on until they miss the raylet
                    with suppress(ProcessLookupError):
                        os.kill(each, signal.SIGKILL)
            case "add":
                others.append(cluster.add_node(num_cpus=1))
            case "odd":
                with another_version(folder.name):
                    others.append(cluster.add_node(num_cpus=1))
            case "stun" | "wake":
                (server,) = cluster.head_node.all_processes["gcs_server"]
                server.process.send_signal(signal.SIGSTOP if "stun" in line else signal.SIGCONT)
            case "behead":
                cluster.remove_node(cluster.head_node, allow_graceful=False)
        print(line.strip(), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
