"""Methods of fine-tuning: each turns a task into a `transformers.Trainer`, and knows no Ray.

A new method is one file with a class, and one line in `METHODS`; keys of its own, if it has any, are one more block of
`TrainConfig`. Guaranteed: what others must know of a method stands on its class, and to read it imports none of the
libraries that train.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from ray_jobs.errors import UsageError
from ray_jobs.models.embedder_config import Precision
from ray_jobs.models.kind import Kind
from ray_jobs.train.batches import Batches
from ray_jobs.train.methods.tally import Tallies

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback

    from ray_jobs.train.config import TrainConfig
    from ray_jobs.train.zero import DeepSpeedConfig

# Name -> (module, class), imported when chosen.
METHODS: dict[str, tuple[str, str]] = {
    "sft": ("ray_jobs.train.methods.sft", "SupervisedFineTuning"),
    "dpo": ("ray_jobs.train.methods.dpo", "DirectPreferences"),
    "kto": ("ray_jobs.train.methods.kto", "LabelledPreferences"),
    "embedder": ("ray_jobs.train.methods.embedder", "ContrastiveEmbedder"),
    "reranker": ("ray_jobs.train.methods.reranker", "CrossEncoderReranker"),
    "reader": ("ray_jobs.train.methods.reader", "SpanReader"),
}

Mode = Literal["min", "max"]
Metric = tuple[str, Mode]
"""Of the validation rows, and whether it is best low or high."""
# Columns that tell what kind of rows a file holds; the first kind whose columns are all there.
KINDS: dict[str, frozenset[str]] = {
    "messages": frozenset({"messages"}),
    "label": frozenset({"prompt", "completion", "label"}),
    "completion": frozenset({"prompt", "completion"}),
    "preference": frozenset({"prompt", "chosen", "rejected"}),
    "retrieval": frozenset({"query", "positive", "negatives"}),
    "qa": frozenset({"question", "passage", "answers", "starts"}),
}
CONVERSATION = "prompt_messages"
"""Where the prompt of a preference is a conversation: its messages."""
# Columns that such files may have besides; what was prepared earlier has none of them.
OPTIONAL: dict[str, frozenset[str]] = {
    "messages": frozenset({"message_weights"}),
    "label": frozenset({CONVERSATION}),
    "preference": frozenset({CONVERSATION}),
}


@dataclass(frozen=True, slots=True)
class Splits:
    """Prepared data on this machine: one Parquet file a split."""

    train: Path
    validation: Path
    hash: str  # of all that is learned from
    cache: Path  # where what is made of them (tokens) is kept, for whoever comes next on this machine
    replay: Path | None = None  # rows of earlier learning, some of which are mixed into the training rows


@dataclass(frozen=True, slots=True)
class Place:
    """Where one worker stands."""

    device: Literal["cpu", "cuda"]
    precision: Precision
    rank: int
    world_size: int
    first_on_machine: Callable[[Callable[[], object]], None]
    """Runs what it is given on one worker of each machine while the others wait."""


@dataclass(frozen=True, slots=True)
class Task:
    """What one worker is to train."""

    config: TrainConfig
    base: Path
    base_revision: str
    splits: Splits
    output: Path  # of this worker alone
    batches: Batches
    place: Place
    deepspeed: DeepSpeedConfig | None
    callbacks: tuple[TrainerCallback, ...] = ()
    tallies: Tallies = field(default_factory=Tallies)
    """What becomes of the rows; the method fills it in."""


@dataclass(frozen=True, slots=True)
class Shift:
    """A key that changes what the validation measures: runs that differ in it are not told apart by that.

    A key that changes the model, such as how much of a text an embedder reads, is none.
    """

    key: str
    why: str
    """A whole clause, of the validation rows."""
    spares: tuple[Metric, ...] = ()
    """What the validation measures alike all the same."""
    spares_evaluation: bool = True
    """Whether base and result are measured alike all the same, before against after."""


class Method(Protocol):
    """One way to fine-tune. A class that derives from this has what most methods have where it says nothing else."""

    name: str
    kinds: tuple[str, ...]
    """Kinds of rows that it learns from."""
    metric: Metric
    """What tells the best checkpoint, where the user does not say."""
    makes: Kind
    """What the model that comes out is for."""
    judge: str
    """Who measures that model: a name of ray_jobs.train.evaluation.judges."""
    fitting: str
    """The bases that it trains, as an error names them to whoever chose another."""
    in_batch: str | None = None
    """Why it learns from a micro-batch as a whole, whose size then changes what is learned; None: row by row."""
    over_workers: bool = False
    """Whether it does so over the micro-batches of all workers, whose number then changes what is learned too."""
    packs: bool = False
    """Whether it can put several rows into one sequence."""
    has_reference: bool = False
    """Whether it compares the model with its base while it trains."""
    shifts: tuple[Shift, ...] = ()

    def by_micro_batch(self, config: TrainConfig) -> bool:
        """Whether it learns something else from micro-batches of another size."""
        return self.in_batch is not None

    def trainer(self, task: Task) -> Trainer:
        """A trainer that is ready to run; raises UsageError where base, data and configuration do not fit.

        What a library says of a base that it cannot load is left to whoever asks: see ray_jobs.train.fit.
        """
        ...


def method_of(name: str) -> Method:
    """The method of that name; raises UsageError for one that is not registered."""
    if name not in METHODS:
        raise UsageError(f"method={name}: not available; expected one of {', '.join(METHODS)}")
    module, kind = METHODS[name]
    found: Method = getattr(import_module(module), kind)()
    return found


def metric_of(config: TrainConfig) -> Metric:
    """The metric that tells the best checkpoint, and whether it is best low or high."""
    chosen = config.checkpoints
    if chosen.metric is not None and chosen.mode is not None:
        return chosen.metric, chosen.mode
    return method_of(config.method).metric


def kind_of(columns: frozenset[str], file: Path) -> str:
    """The kind of rows with these columns; raises UsageError where it is none."""
    for kind, needed in KINDS.items():
        if needed <= columns:
            return kind
    raise UsageError(
        f"data={str(file)!r} has columns {', '.join(sorted(columns))}; expected prepared data: those of one of "
        f"{', '.join(KINDS)}"
    )
