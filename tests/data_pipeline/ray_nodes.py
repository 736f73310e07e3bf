"""A Ray of two nodes on this host, with a job server: `python ray_nodes.py DASHBOARD_PORT`.

Prints "ready"; each line of its input ends one node as the end of its machine would, and prints "lost". All ends with
its input, so whatever ends the test ends the Ray. Its environment says the folder (RAY_TMPDIR) and the rest.
"""

import sys

from ray.cluster_utils import Cluster

OBJECT_STORE_BYTES = 100 * 1024**2
#: A busy machine takes 30 s for a node.
PATIENCE = 240.0


def main(port: int) -> None:
    cluster = Cluster()
    # No port of the agents is the same on two nodes of one host.
    each = {"num_cpus": 1, "object_store_memory": OBJECT_STORE_BYTES, "dashboard_agent_listen_port": None}
    try:
        cluster.add_node(False, include_dashboard=True, dashboard_host="127.0.0.1", dashboard_port=port, **each)
        others = [cluster.add_node(False, **each)]
        cluster.wait_for_nodes(PATIENCE)
        print("ready", flush=True)
        for _ in sys.stdin:
            cluster.remove_node(others.pop(), allow_graceful=False)
            print("lost", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
