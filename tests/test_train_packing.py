"""Which networks may be given packed rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_language_models
import train_bases
from evaluation_tasks import task
from tiny_rerankers import WORDS

from ray_jobs.errors import UsageError
from ray_jobs.train.methods import method_of
from ray_jobs.train.methods.packing import why_not


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
