"""Plan a preparation: list the inputs, find out their kind, cut them into parts, hash them.

Guaranteed: every row of every input is in one part; parts come in the order of the inputs; what is prepared has a hash
that only contents, names and configuration decide, so that another folder or a touched file prepares nothing again.
Every byte of the inputs is read here once, for the hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ray_jobs.corpus.planning import SourcePart, whole
from ray_jobs.corpus.readers import open_file, parts_of
from ray_jobs.corpus.sources import SourceFile, list_sources
from ray_jobs.errors import NotFoundError, UsageError
from ray_jobs.train.data.config import PrepareConfig
from ray_jobs.train.data.kind import Kind
from ray_jobs.train.data.kinds import EVALUATION_KINDS, KINDS, expected, kind_of
from ray_jobs.train.data.prompt import is_list
from ray_jobs.train.data.reading import read_rows
from ray_jobs.train.data.retrieval import lists_positives
from ray_jobs.train.data.validate import Rules, renamed

FORMATS = ("jsonl", "parquet")
INPUTS = "inputs"
PROBED_ROWS = 1000  # of a file, to find one that tells the kind
MIN_PARTS = 32  # below which parts are made smaller, so that work spreads
SMALLEST_PART = 256 << 10
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """What one task stages: a part of one file of one set."""

    number: int
    set: str  # "" for what is prepared, else the evaluation set's name
    piece: SourcePart

    @property
    def input(self) -> str:
        """The file, as rows name it."""
        return self.piece.file.doc_id


@dataclass(frozen=True, slots=True)
class InputSet:
    """Files that are read as one kind."""

    name: str
    kind: str
    lists: bool  # whether the row that tells the kind has a list of positives, or answers that are messages
    files: tuple[SourceFile, ...]
    hashes: tuple[tuple[str, str], ...]  # (name, sha256) of each file
    ignored: tuple[str, ...]  # files of another format in the same folders

    @property
    def bytes(self) -> int:
        """Of all files, as stored."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a preparation reads."""

    data: InputSet
    evaluation: tuple[InputSet, ...]
    parts: tuple[Part, ...]
    digest: str  # names what is prepared

    def rules(self, name: str, config: PrepareConfig) -> Rules:
        """How the rows of a set are read; what the user says of columns is said of what is prepared."""
        if name:
            return Rules(next(EVALUATION_KINDS[found.kind] for found in self.evaluation if found.name == name))
        columns = tuple(sorted(config.columns.items()))
        return Rules(KINDS[self.data.kind], columns, config.source_column, config.split.by == "query")


def plan(config: PrepareConfig, tokenizer: str | None) -> Plan:
    """The plan of `config`; `tokenizer` is the revision of the model whose tokens are counted.

    Raises NotFoundError for a missing file, UsageError for inputs of no kind, CorruptError for a damaged file.
    """
    kinds: Mapping[str, Kind] = KINDS if config.kind == "auto" else {config.kind: KINDS[config.kind]}
    data = _input_set("", config.inputs, kinds, config.columns)
    if config.split.by == "query" and data.kind != "retrieval":
        raise UsageError(f"split.by=query: the inputs hold {data.kind} rows; only retrieval data can be split by query")
    evaluation = tuple(
        _input_set(name, (source,), EVALUATION_KINDS, {}) for name, source in sorted(config.evaluation_sets.items())
    )
    files = {found.name: list(found.hashes) for found in (data, *evaluation)}
    digest = config.content_hash(data.kind, files, tokenizer, lists=data.lists)
    return Plan(data, evaluation, tuple(_parts((data, *evaluation), config.block_bytes)), digest)


def _input_set(name: str, sources: tuple[str, ...], kinds: Mapping[str, Kind], columns: Mapping[str, str]) -> InputSet:
    key = f"evaluation_sets.{name}" if name else INPUTS
    listed = list(list_sources(sources))
    files = tuple(file for file in listed if file.format in FORMATS)
    named = next((file for file in listed if file.format not in FORMATS and not file.relative), None)
    if named is not None or not files:
        wrong = named.uri if named is not None else ", ".join(sources)
        raise UsageError(f"{key}={wrong}: expected JSON Lines (.jsonl, .jsonl.gz, .jsonl.zst) or Parquet (.parquet)")
    hashes = tuple((file.doc_id, _sha256(file)) for file in files)
    ignored = tuple(file.doc_id for file in listed if file.format not in FORMATS)
    return InputSet(name, *_find_kind(key, files, kinds, columns), files, hashes, ignored)


def _find_kind(
    key: str, files: Iterable[SourceFile], kinds: Mapping[str, Kind], columns: Mapping[str, str]
) -> tuple[str, bool]:
    """The kind, and whether the row that tells it has a list of positives, or answers that are messages.

    Of the kinds that the first rows of a file fit, the first in the order of `kinds`: a row without a label among rows
    with one is a wrong row of theirs, and not the other way round.
    """
    wanted = frozenset(name for kind in kinds.values() for name in kind.spellings) | set(columns.values())
    seen: set[str] = set()
    for file in files:
        told: dict[str, bool] = {}
        for number, raw in read_rows(whole(file), wanted):
            if number > PROBED_ROWS:
                break
            if isinstance(raw, Mapping):
                row = renamed(raw, columns)
                names = {name for name, value in row.items() if value is not None}
                found = kind_of(names, kinds)
                if found is not None and found not in told:
                    told[found] = lists_positives(row) or is_list(row.get("chosen"))
                seen |= names
        if told:
            kind = next(name for name in kinds if name in told)
            return kind, told[kind]
    if not seen and len(kinds) == 1:
        # Whether there are rows at all, and what is wrong with them, is told by reading them.
        return next(iter(kinds)), False
    # What the user says of columns is said of what is prepared.
    remedy = "or name columns to rename" if key == INPUTS else "rename the columns in its file"
    raise UsageError(
        f"{key}: no kind of training rows has the columns {', '.join(sorted(seen)[:20]) or '(none was found)'}; "
        f"expected {expected(kinds.values())}, {remedy}"
    )


def _parts(sets: Iterable[InputSet], block_bytes: int) -> Iterable[Part]:
    number = 0
    for found in sets:
        bound = min(block_bytes, max(found.bytes // MIN_PARTS, SMALLEST_PART))
        for file in found.files:
            for piece in parts_of(file, bound):
                yield Part(number, found.name, piece)
                number += 1


def _sha256(file: SourceFile) -> str:
    digest = hashlib.sha256()
    try:
        with open_file(file) as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise NotFoundError(f"input={file.uri}: cannot be read ({error.strerror or error}); check the path") from None
    return digest.hexdigest()
