"""What a training process frees it finds again: the system need not clear the same pages at every step."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ray_jobs.train.allocator import ENVIRONMENT

STEPS = """
import resource, sys, threading
from ray_jobs.train.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def step():
    held = [b"x" * (megabytes << 20) for megabytes in (2, 8, 40, 200, 8, 2)]

def run():
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

# Ray Train runs the loop in a thread of its own, whose memory glibc manages apart.
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


def faults(how: str) -> int:
    """Pages that were cleared while ten steps of 260 MB were run."""
    environment = os.environ | (ENVIRONMENT if how == "kept" else {})
    done = subprocess.run(
        [sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_pages_are_cleared_once_and_not_at_every_step() -> None:
    assert faults("kept") * 20 < faults("as it comes")
