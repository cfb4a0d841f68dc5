"""Checkpoints in the store: who uploads what, which count, which survive, which may be resumed from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from train_runs import Alone, settings

from ray_jobs.errors import CorruptError, UsageError
from ray_jobs.storage import LocalStorage, ObjectStorage, Storage, open_storage
from ray_jobs.train import resume, universal, worker
from ray_jobs.train.checkpoints import Checkpoint, Checkpoints, best, of_the_model, of_worker, survivors
from ray_jobs.train.methods import Place
from ray_jobs.train.plan import Plan
from ray_jobs.train.resume import Expected

RUN = "runs/model/0123"
SHARED = ("adapter_model.safetensors", "trainer_state.json", "global_step4/mp_rank_00_model_states.pt", "latest")


def at_once(make: Callable[[], object]) -> None:
    """A machine with one worker."""
    make()


def record(key: str = "", step: int = 4, metric: float | None = None, **changes: object) -> Checkpoint:
    chosen: dict[str, object] = {
        "key": key,
        "step": step,
        "workers": 2,
        "engine": "deepspeed",
        "stage": 2,
        "metric": metric,
        "metrics": {} if metric is None else {"eval_loss": metric},
        "method": "sft",
        "base_revision": "b1",
        "data_hash": "d1",
        "files": {},
        **changes,
    }
    return Checkpoint.model_validate(chosen)


def written(folder: Path, rank: int) -> Path:
    """What the trainer of one worker leaves in its own folder."""
    own = [f"rng_state_{rank}.pth", f"global_step4/zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"]
    # A trainer may write the shared files on every worker, and what nobody needs.
    for name in (*SHARED, *own, "training_args.bin", "README.md", "zero_to_fp32.py"):
        path = folder / f"rank{rank}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} of {rank}")
    return folder / f"rank{rank}"


def saved(
    checkpoints: Checkpoints, folder: Path, step: int = 4, attempt: str = "a", metric: float | None = None
) -> str:
    key = checkpoints.key(step, attempt)
    for rank in (0, 1):
        checkpoints.upload(key, written(folder, rank), first=rank == 0)
    checkpoints.commit(record(key, step, metric))
    return key


@pytest.fixture(params=["local", "remote"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return LocalStorage(tmp_path / "store") if request.param == "local" else open_storage("memory://")


def test_each_worker_uploads_its_own_shards_and_the_first_what_is_shared(storage: Storage, tmp_path: Path) -> None:
    checkpoints = Checkpoints(storage, RUN)
    key = saved(checkpoints, tmp_path)
    found = {item.key.removeprefix(f"{key}/"): storage.read(item.key).decode() for item in storage.list(key)}
    assert found == {
        **{name: f"{name} of 0" for name in SHARED},
        **{f"rng_state_{rank}.pth": f"rng_state_{rank}.pth of {rank}" for rank in (0, 1)},
        **{
            (name := f"global_step4/zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"): f"{name} of {rank}"
            for rank in (0, 1)
        },
    }


def test_an_upload_to_a_store_on_the_same_disk_copies_nothing(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    checkpoints = Checkpoints(storage, RUN)
    with storage.scratch() as scratch:
        folder = written(scratch, 0)
        checkpoints.upload("k", folder, first=True)
        assert (folder / SHARED[0]).samefile(storage.root / "k" / SHARED[0])


def test_a_checkpoint_without_its_record_does_not_count_and_is_swept(storage: Storage, tmp_path: Path) -> None:
    checkpoints = Checkpoints(storage, RUN)
    whole = saved(checkpoints, tmp_path / "whole", step=2)
    lost = checkpoints.key(4, "b")
    checkpoints.upload(lost, written(tmp_path / "lost", 1), first=False)
    assert [found.key for found in checkpoints.complete()] == [whole]
    checkpoints.sweep()
    assert not list(storage.list(lost))
    assert list(storage.list(whole))


def test_an_attempt_saves_the_step_that_an_earlier_one_saved_too(storage: Storage, tmp_path: Path) -> None:
    checkpoints = Checkpoints(storage, RUN)
    keys = [saved(checkpoints, tmp_path / attempt, attempt=attempt) for attempt in ("a", "b")]
    assert [found.key for found in checkpoints.complete()] == keys


def test_a_fetched_checkpoint_has_every_file_in_one_folder(storage: Storage, tmp_path: Path) -> None:
    checkpoints = Checkpoints(storage, RUN)
    saved(checkpoints, tmp_path)
    (found,) = checkpoints.complete()
    folder = checkpoints.fetch(found)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} >= set(found.files)


def fetched(tmp_path: Path, wanted: Callable[[str], bool]) -> set[str]:
    """What another machine has of a checkpoint of two workers when it has fetched what is wanted."""
    storage = ObjectStorage("memory:///", tmp_path / "cache")
    checkpoints = Checkpoints(storage, RUN)
    saved(checkpoints, tmp_path)
    folder = checkpoints.fetch(checkpoints.complete()[0], wanted)
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_whoever_wants_the_model_gets_nothing_of_the_optimiser(tmp_path: Path) -> None:
    assert fetched(tmp_path, of_the_model) == {"adapter_model.safetensors"}


def test_a_machine_gets_what_all_share_and_the_shards_of_its_own_workers(tmp_path: Path) -> None:
    own = {"rng_state_1.pth", "global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt"}
    assert fetched(tmp_path, partial(of_worker, 1)) == {*SHARED, *own}


@pytest.mark.parametrize(("rank", "expected"), [(1, False), (11, True), (111, False)])
def test_a_shard_is_of_the_worker_whose_rank_it_names(rank: int, expected: bool) -> None:
    for name in ("rng_state_11.pth", "global_step4/bf16_zero_pp_rank_11_mp_rank_00_optim_states.pt"):
        assert of_worker(rank, name) is expected


def test_what_is_loaded_by_as_many_workers_is_fetched_for_this_one_and_all_of_it_to_convert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = ObjectStorage("memory:///", tmp_path / "cache")
    checkpoints = Checkpoints(storage, RUN)
    saved(checkpoints, tmp_path)
    (found,) = checkpoints.complete()
    converted: list[Path] = []
    monkeypatch.setattr(resume, "convert", lambda folder, target: converted.append(folder))
    same = resume.fit(found, checkpoints, 2, 1, tmp_path / "converted", at_once)
    assert (same.folder / "rng_state_1.pth").is_file()
    assert not (same.folder / "rng_state_0.pth").exists()
    other = resume.fit(found, checkpoints, 1, 0, tmp_path / "converted", at_once)
    assert (other.folder, converted) == (tmp_path / "converted", [same.folder])
    assert all((same.folder / name).is_file() for name in found.files)


def test_an_attempt_removes_what_those_before_it_have_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))
    storage = LocalStorage(tmp_path / "store")
    config = settings("sft", tmp_path / "base", tmp_path / "data", tmp_path / "store", "model")
    plan = Plan(config, storage.uri, RUN, "b1", "d1", "train.parquet", "validation.parquet", "cpu", "float32")
    killed, other = universal.folder_of(storage.uri, RUN, "a"), universal.folder_of(storage.uri, "runs/other/1", "a")
    for folder in (killed, other):
        (folder / "global_step4_universal").mkdir(parents=True)
    place = Place("cpu", "float32", 0, 1, at_once)
    assert worker._resume_point(Alone(), plan, Checkpoints(storage, RUN), place, "b") is None
    assert not killed.exists()
    assert other.is_dir()


def test_machines_that_share_a_home_do_not_convert_into_one_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = set()
    for machine in ("a", "b", "a"):
        monkeypatch.setattr(universal.socket, "gethostname", lambda machine=machine: machine)
        folders.add(universal.folder_of("store", RUN, "1"))
    assert len(folders) == 2


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    checkpoints = Checkpoints(storage, RUN)
    key = saved(checkpoints, tmp_path)
    (storage.root / key / "latest").write_text("longer than it was written")
    with pytest.raises(CorruptError, match=r"latest: 26 bytes.*delete .*\.json to resume from an earlier"):
        checkpoints.fetch(checkpoints.complete()[0])


def test_the_last_and_the_best_are_kept(storage: Storage, tmp_path: Path) -> None:
    checkpoints = Checkpoints(storage, RUN)
    for step, metric in ((1, 0.5), (2, 0.1), (3, 0.4), (4, 0.3), (5, 0.2)):
        saved(checkpoints, tmp_path / str(step), step=step, metric=metric)
        checkpoints.retain(1, "min")
    found = checkpoints.complete()
    assert [checkpoint.step for checkpoint in found] == [2, 5]
    left = {item.key for item in storage.list(f"{RUN}/checkpoints")}
    assert {key.split("/")[4] for key in left if not key.endswith("a.json")} == {"00000002-a", "00000005-a"}


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 5).map(float)), min_size=1, max_size=12),
    st.integers(1, 4),
    st.sampled_from(["min", "max"]),
)
def test_survivors_are_the_last_and_the_best(metrics: list[float | None], keep: int, mode: str) -> None:
    made = [record(str(step), step, metric) for step, metric in enumerate(metrics)]
    found = survivors(made, keep, "min" if mode == "min" else "max")
    assert found == [checkpoint for checkpoint in made if checkpoint in found]
    assert set(map(str, range(max(0, len(made) - keep), len(made)))) <= {checkpoint.key for checkpoint in found}
    assert len(found) <= 2 * keep
    measured = [metric for metric in metrics if metric is not None]
    if measured:
        top = min(measured) if mode == "min" else max(measured)
        assert any(checkpoint.metric == top for checkpoint in found)
        winner = best(made, "min" if mode == "min" else "max")
        assert winner is not None
        assert winner.metric == top
        assert winner in found


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"base_revision": "b2"}, "revision of base=tiny was b2 and is b1"),
        ({"data_hash": "d2"}, "hash of the data was d2 and is d1"),
        ({"method": "dpo"}, "method was dpo and is sft"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(changes: dict[str, str], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        resume.check(record("k", **changes), Expected("sft", "tiny", "b1", "d1"))


@pytest.mark.parametrize(
    ("engine", "stage", "workers", "expected"),
    [
        ("deepspeed", 2, 2, False),
        ("deepspeed", 2, 1, True),
        ("deepspeed", 3, 4, True),
        ("deepspeed", 0, 1, False),
        ("ddp", 0, 1, False),
    ],
)
def test_only_shards_of_another_number_of_workers_are_converted(
    engine: str, stage: int, workers: int, expected: bool
) -> None:
    assert resume.needs_conversion(record("k", engine=engine, stage=stage), workers) is expected
