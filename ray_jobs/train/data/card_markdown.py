"""The data card as people read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ray_jobs.train.data.card import DataCard, Duplicates
from ray_jobs.train.data.lengths import Lengths
from ray_jobs.train.data.mining_record import rank_names

_BAR = 40  # characters of the longest bar


def markdown(card: DataCard) -> str:
    """The card in Markdown."""
    parts = [
        [f"# {card.name}", "", f"{card.rows:,} {card.kind} rows, prepared as `{card.hash}`."],
        [f"- **{warning}**" for warning in card.warnings],
        _mining(card),
        _rows(card),
        _rejected(card),
        _splits(card),
        _leaks(card),
        _shared(card),
        _lengths(card),
        _inputs(card),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _mining(card: DataCard) -> list[str]:
    record = card.mining
    if record is None:
        return []
    by = f", scored by {record.reranker} (`{record.reranker_revision}`)" if record.reranker else ""
    header = ("split", "rows", "with negatives", "negatives", "rows added", "left out", "positive", "negative", "apart")
    rows = [
        (
            name,
            *(f"{count:,}" for count in (split.rows, split.mined, split.negatives, split.added)),
            f"{split.dropped + split.repeated:,}",
            *(f"{scores.mean:.3f}" for scores in (split.positive, split.negative, split.difference)),
        )
        for name, split in record.splits.items()
    ]
    lines = [
        *("## Negatives", ""),
        f"Of `{record.data}` ({record.data_kind}), from {record.index}, snapshot {record.snapshot}{by}. "
        f"{record.indexed:,} of {record.positives:,} positives are in the index. Scores are means.",
        *("", *_table(header, rows)),
    ]
    total = record.total
    for title, counts, names in (
        ("Rows by the rank of their positive", total.ranks, rank_names()),
        ("Rows without negatives, by the rule that took most of their hits", total.without, _largest(total.without)),
        ("Hits that were looked at and taken away", total.skipped, _largest(total.skipped)),
    ):
        found = [(name, f"{counts[name]:,}") for name in names if name in counts]
        lines += ["", f"{title}:", "", *_table(("", ""), found)] if found else []
    return lines


def _largest(counts: Mapping[str, int]) -> list[str]:
    return sorted(counts, key=lambda name: (-counts[name], name))


def _rows(card: DataCard) -> list[str]:
    duplicates = card.duplicates
    near = "not looked for" if duplicates.near is None else f"{duplicates.near:,}"
    figures = [
        ("read", f"{card.read:,}"),
        ("rejected", f"{card.rejected:,}"),
        ("changed by cleaning", f"{card.cleaned:,}"),
        ("accepted", f"{card.rows:,}"),
        ("exact duplicates, removed", f"{duplicates.exact:,}"),
        (f"near duplicates (similarity from {duplicates.threshold:g}), removed", near),
        *_near(duplicates),
        ("leaks, removed", f"{card.leaked:,}"),
        *([("their document is in a split above theirs, removed", f"{card.strayed:,}")] if card.strayed else []),
        ("kept", f"{sum(split.rows for split in card.splits.values()):,}"),
    ]
    pairs = [f"- `{pair.row}` is near `{pair.of}` ({pair.similarity:.2f})" for pair in duplicates.examples]
    shown = ["", "Near duplicates, for instance:", "", *pairs] if pairs else []
    return ["## Rows", "", *_table(("", "rows"), figures), *shown]


def _near(duplicates: Duplicates) -> list[tuple[str, str]]:
    if not duplicates.near:
        return []
    return [
        ("of them with another wording of what is asked", f"{duplicates.near_asked:,}"),
        ("of them with another target (answers, completion, passages)", f"{duplicates.near_target:,}"),
    ]


def _rejected(card: DataCard) -> list[str]:
    if not card.rejected:
        return []
    reasons = sorted(card.reasons.items(), key=lambda item: (-item[1], item[0]))
    first = [f"- {wrong.line()}" for wrong in card.first_rejected]
    table = _table(("reason", "rows"), [(reason, f"{count:,}") for reason, count in reasons])
    return ["## Rejected", "", *table, "", "The first ones (all are in rejected.jsonl):", "", *first]


def _splits(card: DataCard) -> list[str]:
    header = ("split", "rows", "share", "wished", "groups", "labels")
    rows = []
    for name, split in card.splits.items():
        labels = ", ".join(f"{label}: {count:,}" for label, count in (split.labels or {}).items())
        shares = (f"{split.share:.1%}", f"{split.wished:.1%}")
        rows.append((name, f"{split.rows:,}", *shares, f"{split.groups:,}", labels))
    by = ", ".join(f"{column} ({count:,} rows)" for column, count in sorted(card.grouped_by.items()))
    return ["## Splits", "", f"Grouped by {by}; no group is in two splits.", "", *_table(header, rows)]


def _leaks(card: DataCard) -> list[str]:
    if not card.leaks:
        checked = ", ".join([*card.splits, *card.evaluation_sets])
        return ["## Leaks", "", f"None among {checked}: nothing that is asked in one is asked in another."]
    header = ("rows of", "found again in", "same", "near", "its questions", "")
    rows = [
        (
            leak.split,
            leak.place,
            f"{leak.same:,}",
            f"{leak.near:,}",
            f"{leak.found:,} of {leak.questions:,}",
            "removed" if leak.removed else "kept",
        )
        for leak in card.leaks
    ]
    pairs = [
        f"- `{pair.row}` of {leak.split} asks what `{pair.of}` of {leak.place} does ({pair.similarity:.2f})"
        for leak in card.leaks
        for pair in leak.examples
    ]
    return ["## Leaks", "", *_table(header, rows), "", "For instance:", "", *pairs]


def _shared(card: DataCard) -> list[str]:
    if not card.shared_documents:
        return []
    header = ("", "units", "about documents of training", "share", "about others")
    rows = [
        (
            found.place,
            f"{found.units:,} ({found.unit})",
            f"{found.shared_units:,}",
            f"{found.shared_units / found.units:.1%}",
            f"{found.units - found.shared_units:,}",
        )
        for found in card.shared_documents
    ]
    note = "Results on the two kinds are to be reported apart; card.json lists the ids of those about other documents."
    return ["## Documents shared with training", "", *_table(header, rows), "", note]


def _lengths(card: DataCard) -> list[str]:
    header = ("split", "text", "total", "mean", "median", "p90", "p95", "p99", "longest", "cut")
    rows, train = [], card.splits["train"].lengths
    for name, split in card.splits.items():
        for text, found in split.lengths.items():
            figures = (found.median, found.p90, found.p95, found.p99, found.longest)
            listed = (f"{value:,}" for value in figures)
            rows.append((name, text, f"{found.total:,}", f"{found.mean:,.1f}", *listed, _cut(found)))
    by = card.tokenizer or "no tokenizer was named"
    lines = ["## Lengths", "", f"In {card.unit} ({by}).", "", *_table(header, rows)]
    for text, found in train.items():
        lines += ["", f"Training rows by the length of {text}:", "", "```", *_bars(found), "```"]
    return lines


def _cut(found: Lengths) -> str:
    if found.cut is None:
        return ""
    return f"{found.cut.rows:,} rows above {found.cut.max_length:,}, {found.cut.lost_share:.1%} of all"


def _bars(found: Lengths) -> Iterable[str]:
    most = max(count for _, count in found.histogram)
    return [
        f"{'<= ' + format(bound, ','):>12} {count:>9,} {'#' * -(-_BAR * count // most)}".rstrip()
        for bound, count in found.histogram
    ]


def _inputs(card: DataCard) -> list[str]:
    rows = [(f.input, f"{f.read:,}", f"{f.rejected:,}", f.sha256[:16]) for f in card.inputs]
    for name, found in card.evaluation_sets.items():
        rows += [
            (f"{f.input} ({name}, {found.kind})", f"{f.read:,}", f"{f.rejected:,}", f.sha256[:16]) for f in found.inputs
        ]
    ignored = ["", f"Of another format, not read: {', '.join(card.ignored)}."] if card.ignored else []
    return ["## Inputs", "", *_table(("file", "rows", "rejected", "sha256"), rows), *ignored]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
