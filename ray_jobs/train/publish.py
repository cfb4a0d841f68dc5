"""From the best checkpoint to a model in the store, with a card, usable by its name.

    models/NAME/...          the model as its loader takes it: whole, or an adapter with the name of its base
    models/NAME/card.json    what it was made from, how, and how good it is; written last: it makes the model complete

Guaranteed: a name that another run or somebody else has taken is refused before work starts; the files that loaders
look for come after the weights. Not guaranteed: that an adapter's base, named by a path, is there on another machine.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ray_jobs.errors import ConflictError, ModelError
from ray_jobs.models import in_store, merging
from ray_jobs.models.adapter import ADAPTER_CONFIG, AdaptedModel
from ray_jobs.models.kind import Form
from ray_jobs.models.resolve import ResolvedModel, resolve
from ray_jobs.storage import Storage, now
from ray_jobs.train.checkpoints import Checkpoint, Checkpoints, of_the_model
from ray_jobs.train.methods import method_of, metric_of
from ray_jobs.train.plan import Plan

_LIBRARIES = ("torch", "transformers", "peft", "trl", "sentence-transformers", "deepspeed")


def check_free(storage: Storage, name: str, runs: Collection[str]) -> None:
    """Raise ConflictError where the store has something of that name that none of these runs has made."""
    if in_store.is_complete(storage, name):
        own = in_store.run_of(storage, name) in runs
    else:
        own = any(_claimed(storage, name, run) for run in runs)
    if not own:
        in_store.check_free(storage, "name", name)


def publish(plan: Plan, storage: Storage, checkpoint: Checkpoint, evaluation: Sequence[Mapping[str, Any]] = ()) -> str:
    """Put the model of `checkpoint` into the store; returns its folder. A model that is there already stays.

    Raises ConflictError where it is there in another form than is asked for now.
    """
    name, form = plan.config.name, form_of(plan)
    check_free(storage, name, [plan.run])
    if in_store.is_complete(storage, name):
        made = in_store.card_of(storage, name).get("form")
        if made != form:
            raise ConflictError(
                f"publish={plan.config.publish}: this run has published {in_store.place(storage, name)} as {made}, not "
                f"{form}; set publish={made} to leave it, or delete that folder to publish it as {form}"
            )
        return in_store.place(storage, name)
    if _claimed(storage, name, plan.run):
        in_store.remove(storage, name)  # what an earlier attempt has left
    else:
        storage.create(_claim(name, plan.run), b"")
    saved = Checkpoints(storage, plan.run).fetch(checkpoint, of_the_model)
    with storage.scratch() as scratch:
        model = scratch / "model"
        if form == "merged":
            merge(plan, storage, saved, model)
        else:
            _copy_model(saved, model)
        if form == "adapter":
            name_base(model, plan.config.base)
        in_store.put(storage, name, model, card(plan, checkpoint, form, evaluation))
    storage.delete(_claim(name, plan.run))
    return in_store.place(storage, name)


def form_of(plan: Plan) -> Form:
    """What is published: all weights of a full run, an adapter, or an adapter merged into its base."""
    config = plan.config
    if config.lora is None:
        return "full"
    if config.publish == "auto":
        # Embedders are loaded whole.
        return "merged" if method_of(config.method).makes == "embedder" else "adapter"
    return config.publish


def card(
    plan: Plan, checkpoint: Checkpoint, form: Form, evaluation: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """What the model is made from, how, and how good it is; of a reader also from which margin on it answers."""
    config = plan.config
    kind = method_of(config.method).makes
    threshold = checkpoint.metrics.get("eval_threshold") if kind == "reader" else None
    start = None if config.lora is None else config.lora.start
    return {
        "name": config.name,
        "kind": kind,
        "method": config.method,
        "form": form,
        "base": {"name": config.base, "revision": plan.base_revision},
        "data": {"name": config.data, "hash": plan.data_hash},
        **({} if config.replay is None else {"replay": {"name": config.replay.data, "hash": plan.replay_hash}}),
        **({} if start is None else {"start": {"name": start, "revision": plan.start_revision}}),
        "run": plan.run,
        "step": checkpoint.step,
        "metric": metric_of(config)[0],
        "metrics": checkpoint.metrics,
        "evaluation": list(evaluation),
        **({} if threshold is None else {"threshold": threshold}),
        "precision": plan.precision,
        "config": config.model_dump(mode="json", exclude={"store"}),
        "libraries": {library: version(library) for library in _LIBRARIES},
        "created": now(),
    }


def merge(plan: Plan, storage: Storage, saved: Path, model: Path) -> None:
    """Write base and adapter as one whole model into the folder `model`."""
    config = plan.config
    base = resolve(config.base, storage)
    adapter = ResolvedModel(config.name, saved, "", "path")
    try:
        merging.merge(method_of(config.method).makes, AdaptedModel(base, adapter), model)
    except ModelError as error:
        raise ModelError(
            f"name={config.name}: the adapter cannot be merged into base={config.base}: {error}; set publish=adapter"
        ) from error


def name_base(model: Path, base: str) -> None:
    """Write into an adapter the name by which its base is found, in place of a path of this machine."""
    file = model / ADAPTER_CONFIG
    settings = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()  # it may be a link to the checkpoint's
    file.write_text(json.dumps({**settings, "base_model_name_or_path": base}, indent=1), encoding="utf-8")


def _copy_model(saved: Path, model: Path) -> None:
    for path in sorted(path for path in saved.rglob("*") if path.is_file()):
        name = path.relative_to(saved)
        if not of_the_model(name.as_posix()):
            continue
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, model / name)


def _claim(name: str, run: str) -> str:
    """The key that says that `run` has begun to write the model `name`."""
    return f"{run}/publishing-{name}"


def _claimed(storage: Storage, name: str, run: str) -> bool:
    return storage.exists(_claim(name, run))
