"""The choice of engine, precision and device for this machine, made once by the driver of a job.

Guaranteed: the result is concrete, so that workers choose nothing; what the user set is kept or refused, never
changed. With a GPU: torch in bfloat16. On a CPU: OpenVINO if the model converts, else torch; in bfloat16 where the CPU
computes in it (cosine to float32 at least 0.9995), else float32.
"""

from __future__ import annotations

from ray_jobs.errors import ModelError, UsageError
from ray_jobs.models.embedder_config import Device, EmbedderConfig, EngineName, Precision
from ray_jobs.models.openvino_ir import converted
from ray_jobs.models.openvino_runtime import cpu_has_bfloat16
from ray_jobs.models.resolve import resolve
from ray_jobs.models.torch_engine import cuda_available, cuda_has_bfloat16
from ray_jobs.storage import Storage


def choose_engine(config: EmbedderConfig, store: Storage | None = None) -> EmbedderConfig:
    """The same configuration with `auto` replaced by a concrete engine, precision and device.

    May convert the model to OpenVINO, to know whether it can be (once; kept in the cache). Raises NotFoundError or
    ModelError for a model that cannot be had, UsageError for a device or precision that this machine lacks.
    """
    if config.engine == "fake":
        return config.model_copy(update={"precision": "float32", "device": "cpu"})
    if "auto" not in (config.engine, config.precision, config.device):
        return config
    device = _device(config)
    engine = _engine(config, device, store)
    return config.model_copy(update={"engine": engine, "precision": _precision(config, device), "device": device})


def _device(config: EmbedderConfig) -> Device:
    if config.device == "cuda" and not cuda_available():
        raise UsageError("device=cuda: torch finds no GPU on this machine; use device=cpu or install a CUDA build")
    if config.device != "auto":
        return config.device
    return "cuda" if config.engine != "openvino" and cuda_available() else "cpu"


def _engine(config: EmbedderConfig, device: Device, store: Storage | None) -> EngineName:
    if config.engine != "auto":
        return config.engine
    if device == "cuda":
        return "torch"
    try:
        converted(resolve(config.model, store), config.cache)
    except ModelError:
        return "torch"
    return "openvino"


def _precision(config: EmbedderConfig, device: Device) -> Precision:
    has_bfloat16 = cuda_has_bfloat16() if device == "cuda" else cpu_has_bfloat16()
    if config.precision == "bfloat16" and not has_bfloat16:
        raise UsageError(f"precision=bfloat16: this machine's {device} does not compute in it; use float32")
    if config.precision != "auto":
        return config.precision
    return "bfloat16" if has_bfloat16 else "float32"
