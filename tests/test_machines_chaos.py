"""The whole way on machines that are each too small for what the whole cluster has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from whole_way import Way

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


def test_from_documents_to_a_tuned_embedder_on_machines_of_one_cpu(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 100_000_000}
    machines = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    try:
        machines.add_node(**size)
        machines.wait_for_nodes()
        way = Way({**os.environ, "RAY_ADDRESS": machines.address}, tmp_path, str(tmp_path / "store"))
        assert "hard" in way.to_negatives()["mine"]
        told = way.tuned()
    finally:
        machines.shutdown()
    assert "gain in ndcg@10 on validation rows - 0.5 x forgotten on other" in told
    assert "2 finished" in told
