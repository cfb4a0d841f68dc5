"""OpenVINO itself: importing it, and what it says of this machine's CPU.

Guaranteed: nothing is reported to anyone. As it comes, importing OpenVINO or converting a model sends usage events to
its makers unless a file in the home folder forbids it; without the package that sends them it uses a stub of its own.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def load_openvino() -> Any:
    """The `openvino` module, without its usage reports if nothing has imported it before."""
    # None in sys.modules makes `import openvino_telemetry` raise ImportError, for which OpenVINO has its stub.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None is documented, not typed
    import openvino

    return openvino


def available_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_has_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16 (AVX512-BF16 or AMX)."""
    return "BF16" in load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
