"""A Ray cluster of several nodes on this host, in a process of its own: run as a script.

Ray's own test cluster works only in a process's main thread. ``RunningCluster`` starts the script
and tells it what to do; it keeps the nodes until its stdin is closed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

ANSWER = "cluster: "
"""Begins each line that answers a command; Ray prints others."""


class RunningCluster:
    """The script in progress: a head, numbered 0, to which nodes are added.

    Args:
        head_cpus: 0 to run trials on added nodes only.
        cwd: folder the head and every node are started in.
    """

    def __init__(self, *, head_cpus: int, cwd: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(head_cpus)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=cwd,
            env={key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
            text=True,
        )
        self._added: list[int] = []
        self.address = self._answer()

    def add(self, *, cpus: int = 1, **variables: str) -> int:
        """Add a node whose processes see these environment variables; return its number."""
        self._added.append(int(self._tell("add", cpus, variables)))
        return self._added[-1]

    def remove(self, number: int) -> None:
        """Take a node away: its processes are stopped, then killed."""
        self._added.remove(number)
        self._tell("remove", number)

    def remove_all(self) -> None:
        """Take all nodes away but the head."""
        for number in list(self._added):
            self.remove(number)

    def kill(self, number: int, what: str) -> None:
        """Send SIGKILL to a node's ``raylet`` or to the head's ``gcs_server``, and nothing else.

        The process stays a zombie, as in a container whose first process collects none: a raylet's
        workers take it for alive and live on.
        """
        self._tell("kill", number, what)

    def close(self) -> None:
        """Stop all nodes."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=120)

    def _tell(self, *command: object) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(ANSWER):
                return line.removeprefix(ANSWER).strip()
        raise AssertionError(f"the cluster ended with exit code {self._process.wait()}")


def main() -> None:
    """Start a head and obey one command a line, until there are no more."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": int(sys.argv[1])})
    nodes = [cluster.head_node]
    print(ANSWER, cluster.address, flush=True)
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        if command == "add":
            cpus, variables = arguments
            nodes.append(cluster.add_node(num_cpus=cpus, env_vars=variables))
        elif command == "remove":
            cluster.remove_node(nodes[arguments[0]])
        elif command == "kill":
            number, what = arguments
            nodes[number].all_processes[what][0].process.send_signal(signal.SIGKILL)
        print(ANSWER, len(nodes) - 1, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
