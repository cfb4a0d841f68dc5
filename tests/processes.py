"""Processes of Ray that belong to the clusters of this test run: others may run beside it."""

from __future__ import annotations

import os

import psutil


def of_this_run(named: str) -> list[psutil.Process]:
    """Those with `named` in their title; told by the token that all clusters of one test run share."""
    return [process for process in psutil.process_iter() if _is(process, named)]


def _is(process: psutil.Process, named: str) -> bool:
    try:
        return (
            named in " ".join(process.cmdline()[:1])
            and process.environ().get("RAY_AUTH_TOKEN") == os.environ["RAY_AUTH_TOKEN"]
        )
    except psutil.Error:
        return False
