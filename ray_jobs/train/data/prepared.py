"""A prepared data set in the store: where its files are, opening it, publishing it.

    STORE/datasets/NAME/HASH/{train,validation,test}.parquet   the rows
    STORE/datasets/NAME/HASH/rejected.jsonl                    what was left out, and why
    STORE/datasets/NAME/HASH/card.md                           what is known of it, for people
    STORE/datasets/NAME/HASH/card.json                         for programs; written last: it makes the set complete
    STORE/datasets/NAME/HASH/asked/ID                          empty; says when a set that was there was asked for again

Guaranteed: a set that can be opened is whole, and its files have the hashes that its card tells. Two runs that prepare
the same at the same time write the same bytes.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ray_jobs.errors import ConflictError, CorruptError, NotFoundError
from ray_jobs.storage import Storage, new_id, sha256_of
from ray_jobs.train.data.card import DataCard
from ray_jobs.train.data.splitting import SPLITS

CARD = "card.json"
CARD_MARKDOWN = "card.md"
REJECTED = "rejected.jsonl"
_ASKED = "asked"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A complete prepared data set."""

    storage: Storage
    card: DataCard

    @property
    def folder(self) -> str:
        """Its folder in the store."""
        return dataset_folder(self.card.name, self.card.hash)

    @property
    def uri(self) -> str:
        """Where its folder is, with the store."""
        return f"{self.storage.uri}/{self.folder}"

    @property
    def reference(self) -> str:
        """What `open_prepared` finds it by, and no other."""
        return f"{self.card.name}@{self.card.hash}"

    def file(self, name: str) -> tuple[str, str]:
        """Key and sha256 of a split's Parquet file."""
        return f"{self.folder}/{name}.parquet", self.card.splits[name].sha256

    def split(self, name: str) -> Path:
        """The local Parquet file of a split, its hash checked; it may have no rows."""
        return self.storage.local(*self.file(name))

    def splits(self) -> dict[str, Path]:
        """The files of the splits that have rows."""
        return {name: self.split(name) for name in SPLITS if self.card.splits[name].rows}

    def to_dict(self) -> dict[str, object]:
        """Where it is and what is known of it, for programs."""
        return {"data": self.reference, "uri": self.uri, "card": self.card.model_dump(mode="json")}


def dataset_folder(name: str, digest: str) -> str:
    """The folder of a prepared data set."""
    return f"datasets/{name}/{digest}"


def find(storage: Storage, name: str, digest: str) -> Prepared | None:
    """The complete data set of this hash, if there is one. Raises CorruptError for a card that cannot be read."""
    key = f"{dataset_folder(name, digest)}/{CARD}"
    if not storage.exists(key):
        return None
    try:
        return Prepared(storage, DataCard.model_validate_json(storage.read(key)))
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise CorruptError(
            f"{storage.uri}/{key}: {place}: {problem['msg']}; delete its folder and prepare again"
        ) from None


def open_prepared(storage: Storage, reference: str) -> Prepared:
    """Open the set that `locate` finds; raises NotFoundError where there is none."""
    name, digest = locate(storage, reference)
    prepared = find(storage, name, digest)
    if prepared is None:
        raise NotFoundError(f"data={reference}: it was removed while it was opened; prepare it again")
    return prepared


def locate(storage: Storage, reference: str) -> tuple[str, str]:
    """Name and hash of the complete set `NAME`, the one last asked for, or `NAME@HASH` (a beginning will do).

    Raises NotFoundError where none is complete, or where the beginning fits several.
    """
    name, _, beginning = reference.partition("@")
    asked = _last_asked(storage, name)
    fitting = [digest for digest in asked if digest.startswith(beginning)]
    if not fitting or (beginning and len(fitting) > 1):
        found = ", ".join(sorted(asked)) or "none"
        raise NotFoundError(f"data={reference}: expected one prepared data set in {storage.uri}; of this name: {found}")
    return name, max(fitting, key=lambda digest: (asked[digest], digest))


def ask_again(storage: Storage, name: str, digest: str) -> None:
    """Make a complete set the one that its name alone means."""
    if locate(storage, name) != (name, digest):
        storage.create(f"{dataset_folder(name, digest)}/{_ASKED}/{new_id()}", b"")


def _last_asked(storage: Storage, name: str) -> dict[str, float]:
    """When each complete set of this name was prepared, or asked for again, by its hash."""
    complete, times = set[str](), dict[str, float]()
    for item in storage.list(f"datasets/{name}"):
        digest, file = item.key.removeprefix(f"datasets/{name}/").split("/", 1)
        if file == CARD:
            complete.add(digest)
        if file == CARD or file.startswith(f"{_ASKED}/"):
            times[digest] = max(item.modified, times.get(digest, 0.0))
    return {digest: times[digest] for digest in complete}


def publish(storage: Storage, card: DataCard, files: dict[str, Path]) -> Prepared:
    """Put the files of a data set into the store, by their names, and its card last."""
    folder = dataset_folder(card.name, card.hash)
    for name, path in files.items():
        _put(storage, f"{folder}/{name}", path)
    with suppress(ConflictError):  # another run prepared the very same
        storage.create(f"{folder}/{CARD}", card.json_text().encode())
    return Prepared(storage, card)


def _put(storage: Storage, key: str, path: Path) -> None:
    try:
        storage.upload(key, path)
    except ConflictError:
        # A run that was killed left it, or another one is writing the same: it may stay if it is what it should be.
        if storage.fingerprint(key)[1] == sha256_of(path):
            return
        storage.delete(key)
        storage.upload(key, path)
