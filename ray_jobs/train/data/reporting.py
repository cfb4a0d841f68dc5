"""Make the card of a data set out of what staging and deciding found; refuse sets that nobody can train on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from ray_jobs.errors import RejectedError, UsageError
from ray_jobs.storage import sha256_of
from ray_jobs.train.data import card as cards
from ray_jobs.train.data.config import PrepareConfig
from ray_jobs.train.data.findings import BY_QUERY, TOGETHER, Findings, warnings_of
from ray_jobs.train.data.keys import LENGTH
from ray_jobs.train.data.kinds import KINDS
from ray_jobs.train.data.lengths import Lengths, measure
from ray_jobs.train.data.planning import InputSet
from ray_jobs.train.data.splitting import SPLITS
from ray_jobs.train.data.staging import StagedPart
from ray_jobs.train.data.writing import first_rejected

EXAMPLES = 5


def check_rejected(config: PrepareConfig, parts: Sequence[StagedPart]) -> None:
    """Raise RejectedError where a set has too many wrong rows, UsageError where it has no right one."""
    for name in sorted({part.set for part in parts}):
        found = [part for part in parts if part.set == name]
        read, rejected = sum(part.read for part in found), sum(part.rejected for part in found)
        what = f"evaluation_sets.{name}" if name else f"name={config.name}"
        if not read:
            raise UsageError(f"{what}: there is no row in the inputs; name files with rows")
        if rejected > config.max_rejected * read or rejected == read:
            reasons = Counter[str]()
            for part in found:
                reasons.update(part.reasons)
            listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
            first = "; ".join(wrong.line() for wrong in first_rejected(found))
            raise RejectedError(
                f"{what}: {rejected:,} of {read:,} rows are wrong ({listed}), more than max_rejected="
                f"{config.max_rejected:g} allows; nothing was prepared; the first: {first}"
            )


def check_splits(found: Findings) -> None:
    """Raise UsageError where a wished split has no rows, or none that stays."""
    places, kept = found.decisions.places, found.decisions.kept
    groups = len(np.unique(found.keys.column("group")[places < len(SPLITS)]))
    for number, (name, share) in enumerate(found.config.split.shares.items()):
        if not share or (kept & (places == number)).any():
            continue
        if (places == number).any():
            raise UsageError(f"split.{name}={share:g}: {_removed(found, number)}")
        by = ", ".join(sorted({column for part in found.data for column in part.grouped_by}))
        raise UsageError(
            f"split.{name}={share:g}: no row falls into it, of {groups:,} groups by {by}; add rows, raise it, "
            f"set it to 0, or choose another split.seed or source_column ('row' groups nothing but equal questions)"
        )


def _removed(found: Findings, split: int) -> str:
    """Why no row of a split stays, and what to do about it."""
    decisions, config = found.decisions, found.config
    rows = int((decisions.places == split).sum())
    leaks = [leak for leak in decisions.leaks if leak.split == split and not config.keep_leaks]
    leaked = len({row for leak in leaks for row in leak.rows})
    near = sum(int(decisions.places[match.row]) == split for match in decisions.near)
    strayed = int((decisions.places[decisions.strayed] == split).sum())
    asked_in = ", ".join(found.place(leak.place) for leak in leaks)
    counts = {
        f"leaks (asked again in {asked_in})": leaked,
        "rows whose document is in another split": strayed,
        "near duplicates": near,
        "exact duplicates": rows - leaked - strayed - near,
    }
    remedies = ["add rows"]
    remedies += [TOGETHER] if any(leak.same and leak.place < len(SPLITS) for leak in leaks) else []
    remedies += ["set keep_leaks=true"] if leaked else []
    remedies += [BY_QUERY] if strayed else []
    remedies += ["set near_duplicates=false"] if near else []
    listed = ", ".join(f"{count:,} {reason}" for reason, count in counts.items() if count)
    return f"all {rows:,} rows that fall into it were removed: {listed}; {', or '.join(remedies)}"


def check_labels(config: PrepareConfig, labels: Mapping[str, Mapping[str, int] | None]) -> None:
    """Raise RejectedError where the rows to train on all have one label."""
    train = labels["train"]
    if train is not None and len(train) == 1:
        (label,) = train
        raise RejectedError(
            f"name={config.name}: all {train[label]:,} training rows have label {label}; learning needs both, "
            f"check the column 'label'"
        )


def label_counts(path: Path) -> dict[str, int] | None:
    """Rows by label; None for files without labels."""
    file = pq.ParquetFile(path)
    if "label" not in file.schema_arrow.names:
        return None
    counts = Counter(str(label).lower() for label in file.read(columns=["label"]).column(0).to_pylist())
    return dict(sorted(counts.items()))


def make_card(
    found: Findings, files: Mapping[str, Path], labels: Mapping[str, dict[str, int] | None]
) -> cards.DataCard:
    """The card of the splits in `files`. Raises UsageError and RejectedError for a set that nobody can train on."""
    config, data, decisions = found.config, found.data, found.decisions
    splits = _splits(found, files, labels)
    reasons, grouped_by = Counter[str](), Counter[str]()
    for part in data:
        reasons.update(part.reasons)
        grouped_by.update(part.grouped_by)
    leaks = tuple(_leak(found, number) for number in range(len(decisions.leaks)))
    return cards.DataCard(
        name=config.name,
        hash=found.plan.digest,
        kind=found.plan.data.kind,
        config=config.deciding(),
        inputs=_inputs(found.plan.data, data),
        ignored=found.plan.data.ignored,
        read=sum(part.read for part in data),
        rejected=sum(part.rejected for part in data),
        reasons=dict(sorted(reasons.items())),
        first_rejected=tuple(first_rejected(data)),
        cleaned=sum(part.cleaned for part in data),
        rows=sum(part.rows for part in data),
        grouped_by=dict(sorted(grouped_by.items())),
        duplicates=_duplicates(found),
        leaks=leaks,
        leaked=decisions.leaked,
        strayed=len(decisions.strayed),
        shared_documents=_shared(found),
        evaluation_sets={item.name: _evaluation(item, found.parts) for item in found.plan.evaluation},
        unit=found.counted.unit,
        tokenizer=found.counted.tokenizer,
        tokenizer_revision=found.counted.revision,
        splits=splits,
        warnings=tuple(warnings_of(found, splits, leaks, files)),
    )


def _splits(
    found: Findings, files: Mapping[str, Path], labels: Mapping[str, dict[str, int] | None]
) -> dict[str, cards.SplitRecord]:
    decisions = found.decisions
    chosen = [decisions.kept & (decisions.places == number) for number in range(len(SPLITS))]
    total = sum(int(mask.sum()) for mask in chosen)
    groups = found.keys.column("group")
    lengths: list[dict[str, Lengths]] = [{} for _ in SPLITS]
    for name in _measured(found):
        column = found.own.column(LENGTH + name, np.int32)
        for split, mask in zip(lengths, chosen, strict=True):
            measured = measure(column[mask[: len(column)].nonzero()], found.config.max_length)
            if measured is not None:
                split[name] = measured
    return {
        name: cards.SplitRecord(
            rows=int(chosen[number].sum()),
            groups=len(np.unique(groups[chosen[number]])),
            wished=found.config.split.shares[name],
            share=round(int(chosen[number].sum()) / total, 6),
            sha256=sha256_of(files[name]),
            bytes=files[name].stat().st_size,
            labels=labels[name],
            lengths=lengths[number],
        )
        for number, name in enumerate(SPLITS)
    }


def _measured(found: Findings) -> list[str]:
    return list(KINDS[found.plan.data.kind].lengths)


def _inputs(files: InputSet, parts: Sequence[StagedPart]) -> tuple[cards.InputRecord, ...]:
    records = []
    for name, sha256 in files.hashes:
        own = [part for part in parts if part.set == files.name and part.input == name]
        read, rejected = sum(part.read for part in own), sum(part.rejected for part in own)
        records.append(cards.InputRecord(input=name, sha256=sha256, read=read, rejected=rejected))
    return tuple(records)


def _evaluation(files: InputSet, parts: Sequence[StagedPart]) -> cards.EvaluationRecord:
    rows = sum(part.rows for part in parts if part.set == files.name)
    return cards.EvaluationRecord(kind=files.kind, inputs=_inputs(files, parts), rows=rows)


def _duplicates(found: Findings) -> cards.Duplicates:
    config, banding = found.config, found.banding
    return cards.Duplicates(
        exact=found.decisions.exact,
        near=len(found.decisions.near) if config.near_duplicates else None,
        near_asked=_differing(found, "asked"),
        near_target=_differing(found, "target"),
        threshold=config.near_threshold,
        bands=banding.bands,
        rows_a_band=banding.rows,
        found_at_threshold=round(banding.chance(config.near_threshold), 4),
        examples=_pairs(found, [(m.row, m.of, m.similarity) for m in found.decisions.near]),
    )


def _differing(found: Findings, name: str) -> int:
    """How many near duplicates differ in a column from the row that stayed."""
    near = found.decisions.near
    column = found.keys.column(name)
    rows, others = ([match.row for match in near], [match.of for match in near])
    return int((column[rows] != column[others]).sum()) if near else 0


def _leak(found: Findings, number: int) -> cards.Leakage:
    leak = found.decisions.leaks[number]
    return cards.Leakage(
        split=found.place(leak.split),
        place=found.place(leak.place),
        same=len(leak.same),
        near=len(leak.near),
        found=len(leak.found),
        questions=found.decisions.questions[leak.place],
        removed=not found.config.keep_leaks,
        examples=_pairs(found, [(m.row, m.of, m.similarity) for m in (*leak.near, *leak.same)]),
    )


def _shared(found: Findings) -> tuple[cards.SharedDocuments, ...]:
    kinds = [found.plan.data.kind] * len(SPLITS) + [item.kind for item in found.plan.evaluation]
    return tuple(
        cards.SharedDocuments(
            place=found.place(overlap.place),
            rows=overlap.rows,
            shared_rows=overlap.shared_rows,
            unit="query" if kinds[overlap.place] == "retrieval" else "row",
            units=overlap.units,
            shared_units=overlap.shared_units,
            # Of an evaluation set by the names its rows have; of a split by the ids that its file has.
            disjoint=tuple(dict.fromkeys(_names(found, overlap.place, overlap.disjoint)))
            if overlap.shared_rows
            else (),
        )
        for overlap in found.decisions.overlaps
    )


def _names(found: Findings, place: int, positions: np.ndarray) -> list[str]:
    return found.keys.names(positions) if place >= len(SPLITS) else found.keys.ids(positions)


def _pairs(found: Findings, matches: Sequence[tuple[int, int, float]]) -> tuple[cards.Pair, ...]:
    return tuple(
        cards.Pair(row=_name(found, row), of=_name(found, of), similarity=round(similarity, 3))
        for row, of, similarity in matches[:EXAMPLES]
    )


def _name(found: Findings, position: int) -> str:
    return found.keys.names(np.array([position]))[0]
