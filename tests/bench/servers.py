"""Servers in processes of their own: Tandem, and what it is measured against. One runs at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serve.transport import free_ports, variables

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
INDEX = "squad"
START_S = 180.0


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    url: str
    port: int


@contextmanager
def running(command: Sequence[str], ready: str, environment: dict[str, str] | None = None) -> Iterator[Address]:
    """Start `command`, in which {port} stands for a free port, wait until `ready` answers 200, and end it after use."""
    (port,) = free_ports(1)
    filled = [part.replace("{port}", str(port)) for part in command]
    places = os.pathsep.join((str(ROOT), str(FOLDER)))
    variables = {**os.environ, "PYTHONPATH": places, "TOKENIZERS_PARALLELISM": "false", **(environment or {})}
    with subprocess.Popen(
        filled, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            address = Address(f"http://127.0.0.1:{port}", port)
            _wait(address.url + ready, process)
            yield address
        finally:
            _end(process)


def tandem(store: Path, *arguments: str, environment: dict[str, str] | None = None) -> object:
    """`tandem serve`, open to everybody on this machine."""
    command = [sys.executable, "-m", "cluster.cli", "serve", "--index", INDEX, "--store", str(store), "--api.open"]
    return running([*command, "--port", "{port}", *arguments], "/readyz", environment)


def noop(partitions: int, fast: bool) -> object:
    """Deployments in the shape of Tandem's that do nothing: Ray Serve as it comes, or `tandem serve`'s transports."""
    command = [sys.executable, str(FOLDER / "noop_chain.py"), "{port}", str(partitions)]
    return running(command, "/ready", variables(Path(tempfile.mkdtemp(prefix="tandem-noop-"))) if fast else {})


def fastapi(store: Path) -> object:
    """The same models and index behind plain FastAPI, in one process."""
    command = [sys.executable, "-m", "uvicorn", "fastapi_peer:app", "--port", "{port}", "--log-level", "error"]
    return running(command, "/ready", {"PEER_STORE": str(store), "PEER_INDEX": INDEX})


def haystack(store: Path) -> object:
    """A hybrid Haystack pipeline over the same chunks and vectors, behind hayhooks."""
    hayhooks = str(Path(sys.executable).parent / "hayhooks")
    command = [hayhooks, "run", "--host", "127.0.0.1", "--port", "{port}", "--pipelines-dir", str(FOLDER / "haystack")]
    return running(command, "/status", {"PEER_STORE": str(store), "PEER_INDEX": INDEX})


def _wait(url: str, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended: {process.stderr.read()[-2000:] if process.stderr else ''}")
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                if response.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"{url}: no answer within {START_S:.0f} s")


def _end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
