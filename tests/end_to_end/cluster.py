"""A Ray cluster of several nodes on this host, in a process of its own: run as a script.

Ray's own test cluster works only in a process's main thread. Prints its address, then keeps the
nodes until its stdin is closed.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Start as many one-CPU nodes as the first argument says."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(int(sys.argv[1]) - 1):
        cluster.add_node(num_cpus=1)
    print(cluster.address, flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
