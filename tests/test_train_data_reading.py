"""Reading rows out of files, counting what is in them, and the card that people read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.corpus.planning import SourcePart, whole
from ray_jobs.corpus.readers import parts_of
from ray_jobs.corpus.sources import SourceFile, list_sources
from ray_jobs.errors import CorruptError, ModelError, NotFoundError
from ray_jobs.models.embedder_config import DEFAULT_MODEL
from ray_jobs.models.resolve import resolve
from ray_jobs.train.data import card as cards
from ray_jobs.train.data import reading
from ray_jobs.train.data.card_markdown import markdown
from ray_jobs.train.data.counting import TokenCounter, WordCounter, counter
from ray_jobs.train.data.lengths import measure
from ray_jobs.train.data.mining_record import MinedSplit, MiningRecord, Scores
from ray_jobs.train.data.raw_row import WrongRowError
from ray_jobs.train.data.reading import read_rows
from ray_jobs.train.data.validate import Rejected

NAMES = frozenset({"prompt", "completion"})


def source(path: Path) -> SourceFile:
    (found,) = list_sources((str(path),))
    return found


def read(path: Path, part: SourcePart | None = None) -> list[object]:
    """What is read, numbered; of a wrong row its reason."""
    return [
        (number, row.reason if isinstance(row, WrongRowError) else row)
        for number, row in read_rows(part or whole(source(path)), NAMES)
    ]


def rows(count: int) -> list[dict[str, object]]:
    return [{"prompt": f"question {n} ä", "completion": f"answer {n}"} for n in range(count)]


def lines(found: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found).encode()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_every_format_gives_the_rows_with_their_numbers(tmp_path: Path, name: str) -> None:
    expected = rows(700)
    path = tmp_path / name
    if name.endswith("parquet"):
        # Columns that nobody asks for are not read.
        pq.write_table(pa.Table.from_pylist([{**row, "more": 1} for row in expected]), path, row_group_size=300)
    else:
        codec = {"gz": "gzip", "zst": "zstd"}.get(path.suffix.removeprefix("."))
        with pa.CompressedOutputStream(str(path), codec) if codec else path.open("wb") as file:
            file.write(lines(expected))
    assert read(path) == list(enumerate(expected, 1))


@given(
    content=st.lists(st.sampled_from(['{"prompt": "ä"}', "", "  ", "{", "[1]", '{"prompt": "' + "x" * 40 + '"}'])),
    size=st.integers(1, 90),
    ends=st.booleans(),
)
def test_the_parts_of_a_file_give_every_line_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, content: list[str], size: int, ends: bool
) -> None:
    path = tmp_path_factory.mktemp("parts") / "a.jsonl"
    path.write_text("\n".join(content) + ("\n" if ends and content else ""))
    whole_file = [row for _, row in read(path)]
    parts = parts_of(source(path), size)
    found, numbers = [], []
    for part in parts:
        own = read(path, part)
        found += [row for _, row in own]
        numbers.append([number for number, _ in own])
    assert found == whole_file
    assert all(own == list(range(1, len(own) + 1)) for own in numbers)


def test_a_wrong_line_costs_itself_and_has_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LINE_BYTES", 60)
    path = tmp_path / "a.jsonl"
    good = b'{"prompt": "a"}\n'
    wrong = [b"{oops\n", b"[1, 2]\n", b"null\n", b'"text"\n', b"\xff\xfe\n", b'{"prompt": "' + b"x" * 200 + b'"}\n']
    path.write_bytes(b"\xef\xbb\xbf" + good + b"\n".join([b"", *wrong]).replace(b"\n\n", b"\n") + b"   \n" + good)
    assert read(path) == [
        (1, {"prompt": "a"}),
        (2, None),
        (3, "bad-json"),
        (4, "not-an-object"),
        (5, "not-an-object"),
        (6, "not-an-object"),
        (7, "bad-encoding"),
        (8, "too-long"),
        (9, None),
        (10, {"prompt": "a"}),
    ]


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(lines(rows(5000)))[:-3000])
    with pytest.raises(CorruptError, match=r"a\.jsonl\.gz: reading stopped inside the file"):
        read(packed)
    table = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows(5000)), table)
    data = bytearray(table.read_bytes())
    data[200:600] = bytes(400)
    table.write_bytes(data)
    with pytest.raises(CorruptError, match=r"a\.parquet"):
        read(table)
    table.write_bytes(b"nothing of the kind")
    with pytest.raises(CorruptError, match=r"a\.parquet"):
        read(table)


def test_a_file_that_vanished_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(rows(1)))
    part = whole(source(path))
    path.unlink()
    with pytest.raises(NotFoundError, match="not any more"):
        read(path, part)


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), ("one two, three.", 3), ("don't", 2), ("漢字かな", 4), ("GPU用の3語", 5), ("x_1 y", 2)],
)
def test_words_are_counted_and_characters_of_scripts_without_spaces(text: str, count: int) -> None:
    assert WordCounter().count([text]) == [count]
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]
    assert WordCounter().count([turns]) == [count + 1]


def test_tokens_are_those_that_the_model_sees(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(resolve(DEFAULT_MODEL).path))
    texts = ["", "A short one.", "A long one, " * 400]
    found = counter(DEFAULT_MODEL, None)
    assert found.unit == "tokens"
    assert found.count(texts) == [len(tokenizer(text, truncation=False)["input_ids"]) for text in texts]
    assert found.count([]) == []


def test_a_conversation_is_counted_by_the_chat_template_where_it_takes_it(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(resolve(DEFAULT_MODEL).path))
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "turn of {{ m.role }} : {{ m.content }} {% endfor %}"
    )
    tokenizer.save_pretrained(tmp_path / "chatty")
    (tmp_path / "chatty" / "config.json").write_text("{}")
    found = TokenCounter(str(tmp_path / "chatty"), None)
    user, answer = {"role": "user", "content": "why"}, {"role": "assistant", "content": "so"}
    plain = len(tokenizer("why\nso")["input_ids"])
    assert found.count([[user, answer]]) == [2 * len(["turn", "of", "x", ":", "y"])]
    # A template without a system role: what is said is counted.
    assert found.count([[{"role": "system", "content": "why"}, answer]]) == [plain]


def test_a_tokenizer_that_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="has no tokenizer that loads"):
        counter(str(tmp_path / "empty"), None)
    with pytest.raises(NotFoundError, match="no/such"):
        counter("no/such", None)


def make_card() -> cards.DataCard:
    """A card on which everything happened."""
    import numpy as np

    lengths = measure(np.array([3, 5, 70], np.int32), 64)
    assert lengths is not None
    split = cards.SplitRecord(
        rows=3, groups=2, wished=1, share=1, sha256="0" * 64, bytes=9, labels={"true": 2}, lengths={"whole": lengths}
    )
    empty = split.model_copy(
        update={"rows": 0, "groups": 0, "wished": 0.0, "share": 0.0, "labels": None, "lengths": {}}
    )
    pair = cards.Pair(row="q|1", of="q2", similarity=0.91)
    mined = MinedSplit(
        rows=3,
        mined=2,
        negatives=5,
        without={"relative-margin": 1},
        skipped={"near-positive": 4},
        ranks={"1": 2, "not among the hits": 1},
        positive=Scores.of([0.9]),
    )
    return cards.DataCard(
        name="toy",
        hash="abc",
        kind="retrieval",
        config={},
        inputs=(cards.InputRecord(input="a|b.jsonl", sha256="f" * 64, read=9, rejected=1),),
        ignored=("notes.txt",),
        read=9,
        rejected=1,
        reasons={"bad-json": 1},
        first_rejected=(Rejected(row=7, input="a|b.jsonl", reason="bad-json", message="the line is not JSON"),),
        cleaned=2,
        rows=8,
        grouped_by={"title": 8},
        duplicates=cards.Duplicates(
            exact=1,
            near=2,
            near_asked=2,
            near_target=1,
            threshold=0.8,
            bands=9,
            rows_a_band=13,
            found_at_threshold=0.9,
            examples=(pair,),
        ),
        leaks=(
            cards.Leakage(
                split="train", place="test", same=1, near=1, found=2, questions=7, removed=True, examples=(pair,)
            ),
        ),
        leaked=2,
        shared_documents=(
            cards.SharedDocuments(
                place="held", rows=4, shared_rows=1, unit="query", units=4, shared_units=1, disjoint=("q9",)
            ),
        ),
        evaluation_sets={"held": cards.EvaluationRecord(kind="retrieval", inputs=(), rows=4)},
        unit="words",
        tokenizer=None,
        tokenizer_revision=None,
        splits={"train": split, "validation": empty, "test": empty},
        warnings=("validation has few rows",),
        mining=MiningRecord(
            data="rows@1",
            data_kind="qa",
            index="notes",
            snapshot=4,
            reranker="cross",
            reranker_revision="r1",
            positives=3,
            indexed=2,
            splits={"train": mined},
        ),
    )


def test_the_card_for_people_says_all_that_the_other_one_does() -> None:
    card = make_card()
    assert card.check() == []
    text = markdown(card)
    for line in (
        "# toy",
        "- **validation has few rows**",
        "| exact duplicates, removed | 1 |",
        "| near duplicates (similarity from 0.8), removed | 2 |",
        "| of them with another target (answers, completion, passages) | 1 |",
        "- row 7 of a|b.jsonl: the line is not JSON",
        "Grouped by title (8 rows); no group is in two splits.",
        "| train | 3 | 100.0% | 100.0% | 2 | true: 2 |",
        "| train | test | 1 | 1 | 2 of 7 | removed |",
        "| held | 4 (query) | 1 | 25.0% | 3 |",
        "1 rows above 64, 7.7% of all",
        "| a\\|b.jsonl | 9 | 1 | ffffffffffffffff |",
        "Of another format, not read: notes.txt.",
        "| relative-margin | 1 |",
        "| not among the hits | 1 |",
        "2 of 3 positives are in the index.",
    ):
        assert line in text, line
    rows_of_tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows_of_tables)


def test_a_card_whose_sums_do_not_hold_says_so() -> None:
    card = make_card()
    assert card.model_copy(update={"rows": 9}).check()
    assert card.model_copy(update={"reasons": {}}).check()


def test_a_card_is_read_back_as_it_was_written() -> None:
    card = make_card()
    assert cards.DataCard.model_validate_json(card.json_text()) == card
    assert any("5 negatives for 2 of 3 rows" in line for line in card.lines())
    assert any("2 near (2 asked in other words, 1 with another target)" in line for line in card.lines())
