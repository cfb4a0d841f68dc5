"""Which networks may be given packed rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_language_models
import train_bases
from evaluation_tasks import task
from hypothesis import given
from hypothesis import strategies as st
from tiny_rerankers import WORDS

from ray_jobs.errors import UsageError
from ray_jobs.train.methods import method_of
from ray_jobs.train.methods.packed_batch import PackedCollator, tokens_in
from ray_jobs.train.methods.packing import check_packing, why_not
from ray_jobs.train.methods.turns import IGNORED


def test_a_network_that_drops_its_positions_is_refused_for_packing(tmp_path: Path) -> None:
    from transformers import BloomConfig, BloomForCausalLM

    tokenizer = tiny_language_models.word_tokenizer([*WORDS, *(f" {word}" for word in WORDS)])
    network = BloomForCausalLM(BloomConfig(vocab_size=len(tokenizer), hidden_size=16, n_layer=1, n_head=2))
    base = tiny_language_models.save(tmp_path / "base", network, tokenizer)
    data = train_bases.completions(tmp_path / "data")
    asked = task(tmp_path, "sft", base, data, sequence={"packing": True})
    refused = (
        r"sequence.packing=true with base=.*: BloomForCausalLM takes no position_ids, .*set sequence.packing=false"
    )
    with pytest.raises(UsageError, match=refused):
        method_of("sft").trainer(asked)


ROWS = st.lists(st.lists(st.integers(2, 6), min_size=1, max_size=4), min_size=1, max_size=4)


@given(ROWS)
def test_a_packed_batch_has_each_row_once_and_learns_no_first_token(packs: list[list[int]]) -> None:
    sequences, next_token = [], 1
    for lengths in packs:
        ids = list(range(next_token, next_token := next_token + sum(lengths)))
        sequences.append({"input_ids": ids, "labels": ids, "seq_lengths": lengths})
    batch = PackedCollator(0)(sequences)
    found = [
        [(int(token), int(place)) for token, place in zip(*row, strict=True) if token]
        for row in zip(batch["input_ids"], batch["position_ids"], strict=True)
    ]
    assert found == [
        list(zip(one["input_ids"], [place for length in one["seq_lengths"] for place in range(length)], strict=True))
        for one in sequences
    ]
    begins = batch["position_ids"] == 0
    assert (batch["labels"][begins] == IGNORED).all()
    assert (batch["labels"][~begins] == batch["input_ids"][~begins]).all()
    assert int(tokens_in(batch["position_ids"])) == next_token - 1


@pytest.mark.parametrize("rows", [1, 3])
def test_sequences_lie_one_below_the_other_unless_attention_is_told_lengths(tmp_path: Path, rows: int) -> None:
    base = train_bases.language_model(tmp_path / "chat")
    data = train_bases.completions(tmp_path / "data")
    sizes = {"global_batch": 3, "micro_batch": 3, "max_steps": 1}
    trainer = method_of("sft").trainer(
        task(tmp_path, "sft", base, data, sequence={"packing": True}, optimisation=sizes)
    )
    one = trainer.data_collator([trainer.train_dataset[place] for place in range(rows)])
    assert one["input_ids"].shape[0] == rows
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**settings, "attn_implementation": "flash_attention_2"}))
    asked = task(tmp_path, "sft", base, data, sequence={"packing": True}, optimisation=sizes)
    assert check_packing(asked)


@pytest.mark.parametrize(
    ("name", "head", "reason"),
    [
        ("Llama", "ForCausalLM", None),
        ("GPT2", "LMHeadModel", None),
        ("Bloom", "ForCausalLM", "takes no position_ids"),
        ("Mpt", "ForCausalLM", "takes no position_ids"),
        ("Mamba", "ForCausalLM", "takes no position_ids"),
        ("Rwkv", "ForCausalLM", "takes no position_ids"),
        ("Jamba", "ForCausalLM", "carries state from token to token"),
        ("MiniMax", "ForCausalLM", "carries state from token to token"),
        ("XLM", "WithLMHeadModel", "makes its masks without position_ids"),
    ],
)
def test_networks_that_see_across_packed_rows_are_known(name: str, head: str, reason: str | None) -> None:
    import transformers

    network, config = getattr(transformers, f"{name}{head}"), getattr(transformers, f"{name}Config")()
    assert why_not(network, config) == reason
