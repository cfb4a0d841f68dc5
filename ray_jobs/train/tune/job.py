"""The search job: check the space, run trials of the training job, write out the best.

    tune/NAME/IDENTITY/trials/...     what was begun and what came of it
    tune/NAME/IDENTITY/trials.json    the same in one file, the best first
    tune/NAME/IDENTITY/best.yaml      the best trial's whole configuration, for `tandem train --config`
    tune/NAME/IDENTITY/report.html

Guaranteed: a trial is a run of the training job under the name that the user chose, so that training the best
configuration finds its run finished and only publishes it, or, where `scheduler.max_steps` ended it, goes on with it;
the same command goes on where it stopped, and with more trials it adds to those that were run, even once the best of
them is published; the search itself publishes nothing. With other rows to learn from, to be reminded of or to be
measured on, and with another adapter to start from, it is another search; with other values of what changes nothing in
a run, such as a smaller micro-batch, it is the same one. A trial that failed is run again only where its folder among
the trials is deleted. Not guaranteed: that two drivers with the same search at once do not disturb each other.
"""

from __future__ import annotations

import time

from ray_jobs.progress import Progress, SilentProgress
from ray_jobs.runtime import ClusterSize, session, terminated_as_interrupt
from ray_jobs.storage import open_storage
from ray_jobs.train import before_after, job, publish, sharing
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.data_file import is_file, prepare_file
from ray_jobs.train.identity import digest, learned
from ray_jobs.train.methods import method_of, metric_of
from ray_jobs.train.plan import Plan, base_folder
from ray_jobs.train.room import check_room, runs_at_once
from ray_jobs.train.tune import objective, outcome
from ray_jobs.train.tune.campaign import Campaign, Rungs
from ray_jobs.train.tune.comparable import check_comparable
from ray_jobs.train.tune.config import DEFAULT_TRIALS, TuneConfig
from ray_jobs.train.tune.given import anchored, training
from ray_jobs.train.tune.halving import Halving
from ray_jobs.train.tune.proposals import GridProposals, Proposals, proposals
from ray_jobs.train.tune.space import Space
from ray_jobs.train.tune.summary import TuneSummary
from ray_jobs.train.tune.trials import Trials


def run(config: TuneConfig, progress: Progress | None = None) -> TuneSummary:
    """Run the trials that `config` asks for, or those that are left of them, and write out the best.

    Raises UsageError, NotFoundError or ModelError for what cannot be searched or trained, before any trial; TandemError
    where every trial fails; KeyboardInterrupt with a message of what is there when asked to stop.
    """
    started = time.monotonic()
    progress = progress or SilentProgress()
    config = anchored(config)
    fixed = training(config)
    space = Space(fixed, config.space)
    goal = objective.resolve(config.objective, space.example, metric_of(space.example))
    check_comparable(config.space, method_of(space.example.method), goal, stops=config.scheduler != "none")
    storage = open_storage(space.example.store)
    if is_file(space.example.data):
        # Once, for all trials; what is written out names the prepared data.
        space = Space(
            {**fixed, "data": prepare_file(space.example.data, storage, progress, space.example.base)}, config.space
        )
    plan = job.make_plan(space.example, storage)
    judged = objective.judged(space.example, config.objective.from_evaluation)
    before_after.check(judged, base_folder(storage, plan), plan.train, storage)
    retained = {file.name: file.sha256 for file in before_after.retained(judged, storage)}
    if config.objective.from_evaluation:
        objective.check_measured(config.objective, *before_after.metrics(judged, plan.train, storage))
    source = proposals(config.search, space, goal.mode, config.seed)
    limit = _limit(config, source)
    name = space.example.name
    folder = f"tune/{name}/{_identity(config, space, plan, retained)}"
    trials = Trials(storage, folder)
    campaign = Campaign(
        space,
        goal,
        source,
        trials,
        _rungs(config, goal.metric_mode),
        storage,
        limit,
        lambda chosen: job.make_plan(chosen, storage).run,
    )
    complete = True
    try:
        if campaign.left:
            publish.check_free(storage, name, {trial.begun.run for trial in trials})
            job.check_data(plan, storage)
            complete = _drive(config, campaign, space.example, progress)
    except KeyboardInterrupt:
        outcome.write(storage, folder, space, goal, trials, complete=False)
        raise KeyboardInterrupt(
            f"{len(trials.ended)} of {limit} trials have ended and are kept; run the same command to go on"
        ) from None
    written = outcome.write(storage, folder, space, goal, trials, complete)
    seconds = round(time.monotonic() - started, 3)
    return written.model_copy(update={"seconds": seconds, "hint": _hint(config, trials)})


def _drive(config: TuneConfig, campaign: Campaign, example: TrainConfig, progress: Progress) -> bool:
    from ray_jobs.train.tune.driving import drive

    # Ray handles signals its own way; what comes after its start counts.
    with session() as cluster, terminated_as_interrupt():
        room = parallel(example, cluster)
        with progress.stage("tune", campaign.left) as stage:
            campaign.show(stage)
            return drive(
                campaign,
                min(config.parallel or room, campaign.left),
                config.time_budget_s,
                config.objective.from_evaluation,
            )


def parallel(config: TrainConfig, cluster: ClusterSize) -> int:
    """How many trials the cluster has room for; raises UsageError where it has none for a single one."""
    workers = sharing.workers_of(config)
    check_room(workers, cluster, "train.workers")
    return runs_at_once(workers, cluster)


def _hint(config: TuneConfig, trials: Trials) -> str:
    finished = [trial.ended for trial in trials if trial.ended is not None and trial.ended.state == "finished"]
    if config.scheduler == "none" or len(finished) < 2 or any(len(ended.evaluations) > 1 for ended in finished):
        return ""
    return (
        "no trial was evaluated before its end, so none could be stopped early: lower "
        "train.checkpoints.evaluate_every_steps, or set scheduler=none"
    )


def _limit(config: TuneConfig, source: Proposals) -> int:
    if isinstance(source, GridProposals):
        return min(len(source), config.trials or len(source))
    return config.trials or DEFAULT_TRIALS


def _rungs(config: TuneConfig, mode: objective.Mode) -> Rungs:
    chosen = config.scheduler
    if chosen == "none":
        return Rungs(None)
    first = chosen.grace if chosen.grace_steps is None else chosen.grace_steps
    return Rungs(
        Halving(first, chosen.reduction_factor, mode),
        in_steps=chosen.grace_steps is not None,
        max_steps=chosen.max_steps,
    )


def _identity(config: TuneConfig, space: Space, plan: Plan, retained: dict[str, str]) -> str:
    """Identifies what is searched and how, not how many trials there are nor who runs them.

    `retained` has the sha256 of each retained set that trials are measured on.
    """
    # What a run is measured on does not change it; it does change which trial is the best.
    fixed = learned(space.example) | {"evaluation": space.example.evaluation.model_dump(mode="json")}
    for key in space.dimensions:
        *blocks, last = key.split(".")
        inner = fixed
        for block in blocks:
            inner = inner[block]
        del inner[last]
    searched = config.model_dump(mode="json", include={"space", "search", "scheduler", "objective", "seed"})
    read = [plan.base_revision, plan.start_revision, plan.data_hash, plan.replay_hash, retained]
    return digest(fixed, searched, *read)
