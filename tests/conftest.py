"""Fixtures that several test files share."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from serve.transport import prefer_fast

# Ray reads these when it is imported; the clusters of the tests share one token. FAISS spends more on starting threads
# for so little work than on the work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
# Requests travel in the tests as they do behind `tandem serve`.
_TRANSPORT = Path(tempfile.mkdtemp(prefix="tandem-test-"))
atexit.register(shutil.rmtree, _TRANSPORT, ignore_errors=True)
prefer_fast(_TRANSPORT)

# Machines are shared: how long one example takes says nothing about the code.
hypothesis.settings.register_profile("tandem", deadline=None)
hypothesis.settings.load_profile("tandem")


@pytest.fixture(scope="session", autouse=True)
def own_marks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Marks of verified files and copies of remote ones stay out of the user's cache."""
    before = os.environ.get("TANDEM_CACHE")
    os.environ["TANDEM_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("TANDEM_CACHE")
    if before is not None:
        os.environ["TANDEM_CACHE"] = before


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in an empty folder, with no setting of the caller's, away from the hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in {name for name in os.environ if name.startswith("TANDEM_")} - {"TANDEM_CACHE"}:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def cluster() -> Iterator[dict[str, str]]:
    """The environment that reaches a real local Ray cluster, one for all tests."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "object_store_memory": 200_000_000, "include_dashboard": False},
    )
    yield {**os.environ, "RAY_ADDRESS": cluster.address}
    cluster.shutdown()


@pytest.fixture(scope="session")
def ray_session(cluster: dict[str, str]) -> Iterator[None]:
    """This process connected to the cluster, so that jobs run in it."""
    import ray

    ray.init(address=cluster["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
