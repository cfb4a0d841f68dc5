"""How requests travel: what Ray Serve is told before it starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serve.transport import prefer_fast, variables


def test_what_is_set_already_stays(tmp_path: Path) -> None:
    environment = {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_HAPROXY_STATS_PORT": "1234"}
    prefer_fast(tmp_path, environment)
    assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    assert environment["RAY_SERVE_HAPROXY_STATS_PORT"] == "1234"
    assert environment["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"


def test_two_servers_on_one_machine_share_neither_files_nor_ports(tmp_path: Path) -> None:
    first, second = variables(tmp_path / "a"), variables(tmp_path / "b")
    own = [name for name in first if name.startswith("RAY_SERVE_HAPROXY_")]
    assert own
    assert not [name for name in own if first[name] == second[name]]
    assert first["RAY_SERVE_HAPROXY_METRICS_PORT"] != first["RAY_SERVE_HAPROXY_STATS_PORT"]


def test_ray_serve_reads_every_variable() -> None:
    import ray.serve._private.constants as read

    source = Path(read.__file__).read_text(encoding="utf-8")
    serving = [name for name in variables(Path("/nowhere")) if name.startswith("RAY_SERVE_")]
    assert not [name for name in serving if f'"{name}"' not in source]


def test_workers_give_way_to_nobody(ray_session: None) -> None:
    import ray

    def niceness() -> int:
        return os.nice(0)

    assert ray.get(ray.remote(niceness).remote()) == os.nice(0)


def test_without_haproxy_ray_serves_own_proxy_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.transport.find_spec", lambda name: None)
    assert variables(tmp_path) == {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_worker_niceness": "0"}
