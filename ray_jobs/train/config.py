"""What a user may set of a fine-tuning run; impossible pairs are refused before any work.

Guaranteed: whatever could be known to fail from the configuration alone fails here, in one line that names both keys
and a remedy. Not guaranteed: what depends on the model, the data or the machine; that is checked where it is known.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticKnownError

from ray_jobs.models.embedder_config import Precision
from ray_jobs.storage import DEFAULT_STORE
from ray_jobs.train.evaluation_config import EvaluationConfig
from ray_jobs.train.impossible import problems
from ray_jobs.train.methods import METHODS
from ray_jobs.train.replay_config import ReplayConfig


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LoraConfig(_Part):
    """Low-rank adapters instead of all weights."""

    rank: int = Field(16, ge=1, description="rank of an adapter's matrices")
    alpha: int = Field(32, ge=1, description="scale: alpha/rank, or alpha/sqrt(rank) with rslora")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before an adapter")
    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        "all-linear", description="all linear layers but the head, or the names of modules"
    )
    dora: bool = Field(False, description="DoRA: magnitude and direction apart")
    rslora: bool = Field(False, description="rank-stabilised scale")
    quantise: Literal["none", "4bit"] = Field("none", description="keep the base in 4 bits (QLoRA; needs a GPU)")
    start: str | None = Field(
        None, description="an adapter of the same base, rank and scale to start from, of any task"
    )


class ZeroConfig(_Part):
    """What of the optimiser, the gradients and the weights each worker keeps."""

    stage: Literal[0, 1, 2, 3] = Field(
        0, description="0: everything on each; 1: optimiser sharded; 2: and gradients; 3: and weights"
    )
    offload_optimizer: Literal["none", "cpu"] = Field("none", description="where the optimiser's state lies")
    offload_parameters: Literal["none", "cpu"] = Field("none", description="where unused weights lie (stage 3)")
    persistence_threshold: int = Field(
        100_000, ge=0, description="matrices of fewer weights are not sharded but kept whole (stage 3)"
    )
    engine: Literal["auto", "ddp", "deepspeed"] = Field(
        "auto", description="auto: torch's DDP where nothing is sharded, else DeepSpeed"
    )

    @property
    def uses_deepspeed(self) -> bool:
        """Whether DeepSpeed's engine runs the steps."""
        return self.engine == "deepspeed" or (self.engine == "auto" and self.stage > 0)

    @model_validator(mode="after")
    def _pairs_that_cannot_be(self) -> Self:
        if self.offload_parameters != "none" and self.stage != 3:
            raise ValueError(
                f"zero.offload_parameters={self.offload_parameters} with zero.stage={self.stage}: only stage 3 shards "
                "weights; set zero.stage=3 or leave zero.offload_parameters out"
            )
        if self.offload_optimizer != "none" and self.stage < 2:
            raise ValueError(
                f"zero.offload_optimizer={self.offload_optimizer} with zero.stage={self.stage}: offloading needs stage "
                "2 or 3; set zero.stage=2 or leave zero.offload_optimizer out"
            )
        if self.engine == "ddp" and self.stage > 0:
            raise ValueError(
                f"zero.engine=ddp with zero.stage={self.stage}: DDP shards nothing; set zero.engine=deepspeed or "
                "zero.stage=0"
            )
        return self


class WorkersConfig(_Part):
    """How many workers, and what each of them gets."""

    count: int = Field(1, ge=1, description="workers, where min and max are not set")
    min: int | None = Field(None, ge=1, description="train with at least so many (with max)")
    max: int | None = Field(
        None, ge=1, description="and at most so many: as many as the cluster has room for and can share global_batch"
    )
    gpus_per_worker: Literal["auto"] | Annotated[int, Field(ge=0, le=1)] = Field(
        "auto", description="one, or none; auto: one where the cluster has GPUs"
    )
    cpus_per_worker: float = Field(1, gt=0, description="CPUs, and so threads, of a worker")

    @property
    def least(self) -> int:
        """The smallest number of workers that the run may have."""
        return self.count if self.min is None else self.min

    @property
    def most(self) -> int:
        """The largest number of workers that the run may have."""
        return self.count if self.max is None else self.max

    @model_validator(mode="after")
    def _pairs_that_cannot_be(self) -> Self:
        if (self.min is None) != (self.max is None):
            raise ValueError(
                f"workers.min={self.min} with workers.max={self.max}: expected both or neither; set both, or "
                "workers.count alone"
            )
        if self.least > self.most:
            raise ValueError(f"workers.min={self.min} is above workers.max={self.max}: swap them")
        return self


class OptimisationConfig(_Part):
    """Steps, batches and precision."""

    learning_rate: float | None = Field(None, gt=0, description="highest rate; None: what suits the method")
    epochs: float = Field(1, gt=0, description="passes over the training rows, where max_steps is not set")
    max_steps: int | None = Field(None, ge=1, description="stop after so many steps, whatever the epochs")
    global_batch: int = Field(32, ge=1, description="rows of one step, over all workers")
    micro_batch: int = Field(8, ge=1, description="rows that one worker runs at a time, at most")
    warmup: float = Field(0.03, ge=0, description="steps of rising rate; below 1: a share of all steps")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="of the rate after the warm-up")
    weight_decay: float = Field(0.0, ge=0, description="decoupled decay (AdamW)")
    max_grad_norm: float = Field(1.0, ge=0, description="gradients are cut at this norm; 0: not cut")
    precision: Literal["auto"] | Precision = Field(
        "auto", description="arithmetic of a step; auto: bfloat16 where the hardware computes in it"
    )
    gradient_checkpointing: bool = Field(False, description="compute activations twice instead of keeping them")
    disable_dropout: bool = Field(
        False, description="train without any dropout; on CPUs, where drawing it is slow, steps take half the time"
    )

    @model_validator(mode="after")
    def _pairs_that_cannot_be(self) -> Self:
        if self.micro_batch > self.global_batch:
            raise ValueError(
                f"optimisation.micro_batch={self.micro_batch} is above optimisation.global_batch={self.global_batch}: "
                "lower optimisation.micro_batch"
            )
        return self


class SequenceConfig(_Part):
    """How rows become sequences of tokens."""

    max_length: int | None = Field(None, ge=8, description="tokens of a row; None: what the base allows, 1024 at most")
    packing: bool = Field(False, description="several short rows in one sequence, apart from each other (sft)")
    completion_only: bool = Field(True, description="learn from completions and assistant turns alone (sft)")


class CheckpointsConfig(_Part):
    """When the run is evaluated and saved, and what survives of it."""

    every_steps: int = Field(100, ge=1, description="steps between two checkpoints; the last step has one anyway")
    evaluate_every_steps: int | None = Field(None, ge=1, description="steps between two evaluations; None: every_steps")
    log_every_steps: int = Field(10, ge=1, description="steps between two reports of the loss")
    keep: int = Field(2, ge=1, description="so many of the last and so many of the best are kept")
    metric: str | None = Field(None, description="what best means, such as eval_loss; None: the method's own")
    mode: Literal["min", "max"] | None = Field(None, description="whether the metric is best low or high")
    max_failures: int = Field(3, ge=0, description="so often the run goes on after workers were lost")

    @property
    def evaluate_every(self) -> int:
        """Steps between two evaluations."""
        return self.evaluate_every_steps or self.every_steps

    @model_validator(mode="after")
    def _pairs_that_cannot_be(self) -> Self:
        if (self.metric is None) != (self.mode is None):
            raise ValueError(
                f"checkpoints.metric={self.metric} with checkpoints.mode={self.mode}: expected both or neither; set "
                "checkpoints.mode to min or max beside the metric"
            )
        if self.every_steps % self.evaluate_every:
            raise ValueError(
                f"checkpoints.every_steps={self.every_steps} is no multiple of checkpoints.evaluate_every_steps="
                f"{self.evaluate_every_steps}: a checkpoint needs its own metric; set evaluate_every_steps to a divisor"
            )
        return self


class DpoConfig(_Part):
    """Direct preference optimisation."""

    beta: float = Field(0.1, gt=0, description="how much it costs to leave the base")


class KtoConfig(_Part):
    """Kahneman-Tversky optimisation."""

    beta: float = Field(0.1, gt=0, description="how much it costs to leave the base")


class EmbedderMethodConfig(_Part):
    """Contrastive learning of an embedder."""

    loss: Literal["mnrl", "cached_mnrl"] = Field(
        "mnrl", description="the other rows of a micro-batch are negatives; cached: a large one in small parts"
    )
    mini_batch: int = Field(32, ge=1, description="rows of a part (cached_mnrl)")
    negatives: int = Field(1, ge=0, description="hard negatives of a query, where the rows have them")


class RerankerMethodConfig(_Part):
    """Learning of a cross-encoder."""

    loss: Literal["bce", "lambda"] = Field("bce", description="each pair by itself, or the order of a query's texts")
    negatives: int = Field(4, ge=1, description="negatives of a query, where the rows have them")


class ReaderMethodConfig(_Part):
    """Learning of an extractive reader."""

    max_answer_tokens: int = Field(32, ge=1, description="tokens of an answer at most")
    stride: int = Field(64, ge=0, description="tokens that two windows of a long passage share")


class TrainConfig(_Part):
    """One fine-tuning run: from a base and prepared data to a named model in the store."""

    method: str = Field(description=f"what is learned, and how: {', '.join(METHODS)}")
    base: str = Field(min_length=1, description="name or path of the model to start from")
    data: str = Field(
        min_length=1, description="prepared data: NAME, NAME@HASH or their folder; or a file of rows, prepared first"
    )
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", description="name of the model that comes out: its folder's too"
    )
    store: str = Field(
        DEFAULT_STORE, description="where data, checkpoints and models lie: a path or s3://, gs://, az://"
    )
    seed: int = Field(0, ge=0, description="of shuffling and of new weights")
    publish: Literal["auto", "adapter", "merged"] = Field(
        "auto", description="auto: an adapter stays one where whoever loads it can; merged: one whole model, in float32"
    )
    lora: LoraConfig | None = Field(None, description="None: all weights are trained")
    zero: ZeroConfig = ZeroConfig()
    workers: WorkersConfig = WorkersConfig()
    optimisation: OptimisationConfig = OptimisationConfig()
    sequence: SequenceConfig = SequenceConfig()
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    replay: ReplayConfig | None = Field(None, description="None: training rows alone")
    dpo: DpoConfig = DpoConfig()
    kto: KtoConfig = KtoConfig()
    embedder: EmbedderMethodConfig = EmbedderMethodConfig()
    reranker: RerankerMethodConfig = RerankerMethodConfig()
    reader: ReaderMethodConfig = ReaderMethodConfig()

    @field_validator("method")
    @classmethod
    def _is_registered(cls, value: str) -> str:
        if value not in METHODS:
            *most, last = map(repr, METHODS)
            raise PydanticKnownError("literal_error", {"expected": f"{', '.join(most)} or {last}"})
        return value

    @model_validator(mode="after")
    def _pairs_that_cannot_be(self) -> Self:
        for problem in problems(self):
            raise ValueError(problem)
        return self
