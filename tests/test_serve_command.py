"""`tandem serve`: what it deploys, and what it refuses before it deploys anything."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema
from served import FACTS, free_port, publish, status_of
from signals import at_every_line
from waiting import wait_for

from cluster.cli import run
from cluster.commands.serve import ServeCommand, serve_yaml, wait_to_be_stopped, with_key
from serve.config import ServeConfig


@pytest.fixture
def store(tmp_path: Path) -> Path:
    publish(tmp_path / "store", FACTS)
    return tmp_path / "store"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["serve", *arguments]) in (1, 2)
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "index is missing: give --index"),
        (("--index", "nothing"), "index=nothing: no such index"),
        (("--index", "facts", "--index", "facts"), "named twice"),
        (("--index", "facts", "--port", "99999"), "port="),
        (("--index", "facts", "--api.open", "--host", "0.0.0.0"), "everyone on the network could ask"),
        (("--index", "facts", "--generator.engine", "transformers"), "name the language model"),
        (("--index", "facts", "--partitions", "0"), "partitions="),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(
    store: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    assert words in refused(capsys, "--store", str(store), *arguments)


def test_a_port_that_is_taken_is_refused_before_anything_starts(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = refused(capsys, "--store", str(store), "--index", "facts", "--port", str(port))
    assert f"port={port}: cannot listen on 127.0.0.1" in text


def test_the_dry_run_prints_what_ray_serve_deploys(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--index", "facts", "--store", str(store), "--partitions", "3", "--dry-run"]) == 0
    printed = capsys.readouterr()
    schema = ServeDeploySchema.model_validate(yaml.safe_load(printed.out))
    (application,) = schema.applications
    assert application.import_path == "serve.app:build"
    config = ServeConfig.model_validate(application.args)
    assert (config.index, config.partitions) == (("facts",), 3)
    # The key is said once, and never written into the file.
    assert "tdm_" in printed.err
    assert "tdm_" not in printed.out


def test_what_the_dry_run_prints_is_a_configuration_of_the_command(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ["serve", "--index", "facts", "--store", str(store), "--partition-s", "3", "--traces", "0.5", "--dry-run"]
    assert run(first) == 0
    path = tmp_path / "serve.yaml"
    path.write_text(capsys.readouterr().out)
    assert run(["serve", "--config", str(path), "--dry-run"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(path.read_text())


def test_settings_of_any_depth_survive_the_file() -> None:
    values: dict[str, Any] = {
        "index": ["a", "b"],
        "deployments": {"retriever": {"max_replicas": 4, "num_cpus": 2}},
        "api": {"tenants": {"t": {"keys": ["0" * 64], "where": "year > 2000"}}},
        "generator": {"engine": "openai", "model": "m", "base_url": "http://host/v1"},
    }
    command = ServeCommand.model_validate({**values, "port": 9000})
    written = serve_yaml(command, command.serve_config())
    # What the file names is all: no model is added to it when it is read.
    assert ServeCommand.model_validate(ServeCommand.keys_of(written)) == command.model_copy(
        update={"own_models": False}
    )


def test_a_server_without_tenants_gets_a_key_of_its_own() -> None:
    config, key = with_key(ServeConfig(index=("a",)))
    assert key is not None
    assert list(config.api.tenants) == ["local"]
    assert with_key(config) == (config, None)


def test_the_command_serves_until_it_is_interrupted(store: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "cluster.cli", "serve", "--index", "facts", "--store", str(store), "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            said = json.loads(process.stdout.readline())
            assert said["url"] == f"http://127.0.0.1:{port}"
            wait_for(lambda: status_of(f"{said['url']}/readyz") == 200, 60)
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def test_signals_that_come_while_one_is_handled_stop_the_server_all_the_same() -> None:
    with at_every_line():
        wait_to_be_stopped()
