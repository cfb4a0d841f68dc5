"""The evaluation job: what a run began from and its best checkpoint, on held-out rows and every retained set.

    runs/NAME/IDENTITY/samples.json       what the model said before and after
    runs/NAME/IDENTITY/evaluation.json    a row a set and metric; written last: it makes the evaluation complete

One task of Ray measures. Guaranteed: what cannot be measured is refused before anything is trained; a job that is
killed here measures again and trains nothing again; what was measured by other sets, splits or settings is measured
anew; a lack of memory says how the trained run is published without being measured. Not guaranteed: that a model card
that was written before follows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ray_jobs.errors import TandemError, UsageError, first_line
from ray_jobs.progress import Progress
from ray_jobs.runtime import anywhere, cluster_size, find_cause, wait_for
from ray_jobs.storage import Storage, open_storage
from ray_jobs.train import batches
from ray_jobs.train.checkpoints import Checkpoint, Checkpoints, of_the_model
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.evaluation.judges import check_kind, judge_of, metrics_of
from ray_jobs.train.evaluation.scores import Role, chosen_rows, table_row
from ray_jobs.train.evaluation.sets import (
    SetFile,
    beside,
    check_apart,
    find_split,
    has_conversations,
    local_file,
    read_columns,
)
from ray_jobs.train.failures import process_lost, short_of_memory
from ray_jobs.train.fit import base_explained, explained
from ray_jobs.train.memory import measuring_explained, measuring_remedy
from ray_jobs.train.methods import Place, method_of
from ray_jobs.train.methods.language import tokenizer_in
from ray_jobs.train.methods.turns import check_template
from ray_jobs.train.plan import Plan, start_of
from ray_jobs.train.room import largest_machine
from ray_jobs.train.worker import task_of


@dataclass(frozen=True, slots=True)
class Part:
    """What was found on one set."""

    measured: int  # rows
    rows: list[dict[str, Any]]
    samples: list[dict[str, str]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)


def check(config: TrainConfig, base: Path, train: str, storage: Storage) -> SetFile | None:
    """The rows to replay, if any; `base` is the folder of the base.

    Raises UsageError or NotFoundError where sets do not fit the run, its base or each other, ModelError for a base
    whose tokeniser cannot be read.
    """
    for found in retained(config, storage):
        check_kind(config.method, found.name, found.kind)
        if found.place == train:
            raise UsageError(f"{found.name}: these are the training rows; name a set that is not learned")
    replayed = None if config.replay is None else _replayed(config, config.replay.data, train, storage)
    writes = method_of(config.method).makes == "generator"
    if replayed is None and not writes:
        return None
    given = [found for _, found in _sets(config, train, storage)]
    if replayed is not None:
        checked = {found.place: found for found in given}
        # By them the best checkpoint is chosen.
        validation = beside(f"data={config.data} (validation)", train, "validation", storage)
        if validation is not None:
            checked.setdefault(validation.place, validation)
        for found in checked.values():
            check_apart(replayed, found, storage)
        given.insert(0, replayed)
    if writes:
        _check_template(config, base, given, storage)
    return replayed


def _replayed(config: TrainConfig, data: str, train: str, storage: Storage) -> SetFile:
    found = find_split("replay.data", data, ("train",), storage)
    own = beside("data", train, "train", storage)
    if own is not None and own.kind != found.kind:
        raise UsageError(
            f"replay.data={data}: its rows are of kind {found.kind}, those of data={config.data} of kind {own.kind}; "
            "replay rows of their kind"
        )
    return found


def _check_template(config: TrainConfig, base: Path, sets: Sequence[SetFile], storage: Storage) -> None:
    """Raise UsageError where conversations would be given to a base without a chat template."""
    found = next((one for one in sets if has_conversations(one, storage)), None)
    if found is not None:
        with base_explained(config, base):
            tokenizer = tokenizer_in(base)
        check_template(tokenizer, config.base, f"the rows of {found.name}")


def retained(config: TrainConfig, storage: Storage) -> list[SetFile]:
    """The rows of the sets that must not be forgotten; raises as `check` does where there are none."""
    chosen = config.evaluation
    # Better than nothing: a set that has only one of both.
    splits = ("test", "validation") if chosen.split == "test" else ("validation", "test")
    return [
        find_split(f"evaluation.retained.{name}", reference, splits, storage)
        for name, reference in chosen.retained.items()
    ]


def metrics(
    config: TrainConfig, train: str, storage: Storage
) -> tuple[tuple[str, ...] | None, dict[str, tuple[str, ...]]]:
    """By what the target is measured, None where it has no rows, and by what each retained set, by its name.

    Of each the chief metric comes first; some are there only where the rows allow them.
    """
    target, kept = None, {}
    for role, found in _sets(config, train, storage):
        measured = metrics_of(config.method, found.kind)
        if role == "target":
            target = measured
        else:
            kept[found.name.rpartition(".")[2]] = measured
    return target, kept


def missing(plan: Plan, storage: Storage, checkpoint: Checkpoint) -> bool:
    """Whether something is to be measured that was not yet."""
    if not plan.config.evaluation.wanted:
        return False
    found = _read(plan, storage)
    return found is None or bool(found["asked"] != _asked(plan, storage, checkpoint))


def rows(plan: Plan, storage: Storage) -> list[dict[str, Any]]:
    """The rows of evaluation.json; none where nothing was measured."""
    found = _read(plan, storage)
    return [] if found is None else list(found["rows"])


def lines(plan: Plan, storage: Storage) -> tuple[str, ...]:
    """What was measured, as people read it."""
    return tuple(
        f"{row['role']} {row['set']}: {row['metric']} {row['before']:.4g} to {row['after']:.4g} "
        f"({row['delta']:+.4g}, 95 % interval {row['low']:+.4g} to {row['high']:+.4g}, {row['rows']:,} rows)"
        for row in rows(plan, storage)
    )


def measure(plan: Plan, storage: Storage, checkpoint: Checkpoint, progress: Progress) -> None:
    """Measure base and `checkpoint`, and write what was found.

    Raises what the task raised, if it was an error of Tandem's; TandemError for a lack of memory, which says how the
    run is published without it.
    """
    sets = _sets(plan.config, plan.train, storage)
    parts: list[Part] = []
    with progress.stage("measure", len(sets)) as stage:
        for part in _streamed(plan, sets, checkpoint):
            parts.append(part)
            stage.advance(1, rows=part.measured)
    skipped = [reason for part in parts for reason in part.skipped]
    split = plan.config.evaluation.split
    if plan.config.evaluation.test and not any(role == "target" for role, _ in sets):
        skipped.append({"set": split, "reason": f"the data has no rows in its {split} split"})
    found = {
        "asked": _asked(plan, storage, checkpoint),
        "rows": [row for part in parts for row in part.rows],
        "skipped": skipped,
    }
    samples = [sample for part in parts for sample in part.samples]
    # The evaluation last: it makes the whole complete.
    storage.delete(_key(plan))
    for name, content in (("samples.json", samples), ("evaluation.json", found)):
        storage.delete(f"{plan.run}/{name}")
        storage.create(f"{plan.run}/{name}", json.dumps(content, indent=1, ensure_ascii=False).encode())


def measured(plan: Plan, sets: Sequence[tuple[Role, SetFile]], checkpoint: Checkpoint) -> Iterator[Part]:
    """What is found on each set, in turn; runs on a worker, and knows no Ray."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    config, storage = plan.config, open_storage(plan.store)
    with storage.scratch() as scratch, measuring_explained(config):
        place = Place(plan.device, plan.precision, 0, 1, _at_once)
        sizes = batches.Batches(config.optimisation.micro_batch, 1, 1)
        task = task_of(plan, storage, scratch, sizes, place)
        tuned = Checkpoints(storage, plan.run).fetch(checkpoint, of_the_model)
        start = start_of(storage, plan)
        with explained(task):
            judge = judge_of(task, tuned, None if start is None else start.path)
        chosen = config.evaluation
        for role, file in sets:
            columns = read_columns(local_file(storage, file.place, file.sha256), file.kind, chosen.limit, config.seed)
            count = len(next(iter(columns.values())))
            scores = judge.scores(columns, file.kind)
            samples = []
            if role == "target" and chosen.samples:
                few = chosen_rows(count, chosen.samples, config.seed)
                samples = [asdict(sample) for sample in judge.samples(columns, file.kind, few)]
            table = [table_row(file.title, role, one, chosen.bootstrap, config.seed) for one in scores]
            skipped = [] if table else [{"set": file.title, "reason": "none of its rows can be measured"}]
            yield Part(count, table, samples, skipped)


def _streamed(plan: Plan, sets: Sequence[tuple[Role, SetFile]], checkpoint: Checkpoint) -> Iterator[Part]:
    """The parts as they come from a worker; raises its error if it is one of Tandem's."""
    import ray

    if not sets:
        return
    gpus = 1 if plan.device == "cuda" else 0
    task = ray.remote(**anywhere(_cpus(plan, gpus), gpus), max_calls=1)(measured)
    references = task.remote(plan, list(sets), checkpoint)
    try:
        for _ in sets:
            wait_for(references)
            yield ray.get(next(references))
    except Exception as error:
        if (cause := find_cause(error)) is not None:
            raise cause from None
        if short_of_memory(error):
            raise TandemError(measuring_remedy(plan.config)) from None
        if process_lost(error):
            reason = first_line(error)
            raise TandemError(
                f"the worker that measured was lost ({reason}); the run is trained and its checkpoints are kept: the "
                f"same command measures again; if it was stopped for lack of memory: {measuring_remedy(plan.config)}"
            ) from None
        raise
    except (KeyboardInterrupt, GeneratorExit):
        # Never a task that may have ended: Ray ends this process where its reply crosses the cancellation.
        ray.cancel(references)
        raise


def _cpus(plan: Plan, gpus: int) -> float:
    """As many CPUs as the training had, if one machine has them."""
    workers = plan.config.workers
    return float(min(workers.most * workers.cpus_per_worker, largest_machine(workers, gpus, cluster_size())))


def _sets(config: TrainConfig, train: str, storage: Storage) -> list[tuple[Role, SetFile]]:
    """What is to be measured: the target first."""
    split = config.evaluation.split
    target = beside(split, train, split, storage) if config.evaluation.test else None
    found: list[tuple[Role, SetFile]] = [] if target is None else [("target", target)]
    return found + [("retained", one) for one in retained(config, storage)]


def _asked(plan: Plan, storage: Storage, checkpoint: Checkpoint) -> dict[str, Any]:
    """What an evaluation depends on."""
    chosen = plan.config.evaluation
    sets = {f"{role} {file.title}": file.sha256 for role, file in _sets(plan.config, plan.train, storage)}
    settings = {"samples": chosen.samples, "bootstrap": chosen.bootstrap, "limit": chosen.limit}
    return {"checkpoint": checkpoint.key, "step": checkpoint.step, "sets": sets, **settings}


def _key(plan: Plan) -> str:
    return f"{plan.run}/evaluation.json"


def _read(plan: Plan, storage: Storage) -> dict[str, Any] | None:
    if not storage.exists(_key(plan)):
        return None
    found: dict[str, Any] = json.loads(storage.read(_key(plan)))
    return found


def _at_once(make: Callable[[], object]) -> None:
    make()
