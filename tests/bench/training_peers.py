"""What a user would run without Tandem: the plain trainers of TRL and sentence-transformers, in a process of their own.

`python training_peers.py '{"kind": "sft", ...}'` prints one JSON object with the trainer's own figures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PlainRun:
    """One plain run; sizes as in TrainConfig."""

    kind: str  # "sft" or "embedder"
    base: str
    data: str
    steps: int
    global_batch: int
    micro_batch: int
    max_length: int
    bfloat16: bool
    by_length: bool = False  # rows of like length together

    def measured(self, threads: int) -> dict[str, float]:
        """Run it in a new process with so many threads; the last figures that the trainer logs."""
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, __file__, json.dumps(asdict(self))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the plain trainer failed: {done.stderr[-2000:]}")
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found


def main() -> None:
    """Run what the argument says."""
    run = PlainRun(**json.loads(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        trainer = _sft(run, folder) if run.kind == "sft" else _embedder(run, folder)
        watch = _stopwatch()
        trainer.add_callback(watch)
        trainer.train()
    tokens = max((entry.get("num_tokens", 0) for entry in trainer.state.log_history), default=0)
    print(json.dumps({"seconds": watch.seconds, "tokens": tokens}))


def _stopwatch() -> Any:
    """A callback that takes the time from the begin of training to the end of its last step, as Tandem does."""
    from transformers import TrainerCallback

    class Stopwatch(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *given: Any, **named: Any) -> None:
            self.begun = time.monotonic()

        def on_step_end(self, *given: Any, **named: Any) -> None:
            self.seconds = time.monotonic() - self.begun

    return Stopwatch()


def _arguments(run: PlainRun, folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "max_steps": run.steps,
        "per_device_train_batch_size": run.micro_batch,
        "gradient_accumulation_steps": run.global_batch // run.micro_batch,
        "learning_rate": 1e-4,
        "bf16": run.bfloat16,
        "use_cpu": True,
        "logging_steps": 10,
        "save_strategy": "no",
        # TRL's default is to compute them twice.
        "activation_checkpointing": False,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 0,
    }


def _sft(run: PlainRun, folder: str) -> Any:
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer

    rows = load_dataset("parquet", data_files=str(Path(run.data) / "train.parquet"), split="train", cache_dir=folder)
    settings = SFTConfig(
        **_arguments(run, folder),
        max_length=run.max_length,
        completion_only_loss=True,
        train_sampling_strategy="group_by_length" if run.by_length else "random",
    )
    return SFTTrainer(model=run.base, args=settings, train_dataset=rows.select_columns(["prompt", "completion"]))


def _embedder(run: PlainRun, folder: str) -> Any:
    from datasets import load_dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    rows = load_dataset("parquet", data_files=str(Path(run.data) / "train.parquet"), split="train", cache_dir=folder)
    model = SentenceTransformer(run.base, device="cpu", local_files_only=True)
    model.max_seq_length = run.max_length
    return SentenceTransformerTrainer(
        model=model,
        args=Arguments(**_arguments(run, folder)),
        train_dataset=rows.select_columns(["query", "positive"]),
        loss=MultipleNegativesRankingLoss(model),
    )


if __name__ == "__main__":
    main()
