"""The runs behind training_gpu.py: a model and rows made on the spot, and trainers as a worker of Tandem gets them.

Guaranteed: the same model and rows every time; the trainer, its batches and its checks are those of `tandem train`. No
checkpoint is written and nothing is evaluated.
"""

from __future__ import annotations

import gc
import json
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from table import Cell, Table
from training_gpu import Sizes
from transformers import PrinterCallback, Trainer, TrainerCallback

from ray_jobs.train import batches
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.methods import Place, Splits, Task, method_of
from ray_jobs.train.steps import Tokens, watch

Device = Literal["cpu", "cuda"]
ROUNDS_OF_PEAK = 5
PRODUCTS = 20  # a round


@dataclass(frozen=True)
class Way:
    """One way to train."""

    weights: Literal["full", "LoRA"]
    batches: Literal["dense", "packed", "padded"]


WAYS = [Way(weights, rows) for weights in ("full", "LoRA") for rows in ("dense", "packed", "padded")]


@dataclass(frozen=True)
class Rate:
    """What one run gave."""

    tokens: float  # a second
    flops: float  # a token
    attention: str
    micro_batch: int
    memory: int  # bytes at most


def tables(folder: Path, sizes: Sizes, device: Device, attention: str) -> list[Table]:
    """Measure the peak, then every way to train, `sizes.rounds` times over."""
    reached = peak(sizes.matrix, device)
    bench = Bench(folder, sizes, device, available(device) if attention == "auto" else attention)
    rates: dict[Way, list[Rate]] = {}
    for turn in range(sizes.rounds):
        for way in WAYS[:: -1 if turn % 2 else 1]:
            rates.setdefault(way, []).append(bench.run(way))
    rows: list[list[Cell]] = [_row(way, rates[way], reached) for way in WAYS]
    return [
        Table(
            f"Fine-tuning of {bench.weights / 1e6:,.4g} million random weights on one device, rows of {sizes.length} "
            "tokens at most",
            [
                "weights", "batches", "attention", "rows a micro-batch", "tokens/s (least to most)", "TFLOP/s",
                "share of the peak", "memory, GB",
            ],
            rows,
            notes=(
                f"Peak: {reached / 1e12:,.4g} TFLOP/s, the fastest of {ROUNDS_OF_PEAK} rounds of bfloat16 products of "
                f"{sizes.matrix} x {sizes.matrix}.",
                "6 N FLOPs a token for all weights, 4 N + 6 A for LoRA; attention's own products are left out.",
                f"Rounds: {sizes.rounds}, of {sizes.steps - sizes.skipped} steps of {sizes.global_batch} rows each.",
            ),
        )
    ]  # fmt: skip


def _row(way: Way, rates: Sequence[Rate], reached: float) -> list[Cell]:
    found = [rate.tokens for rate in rates]
    middle = statistics.median(found)
    flops = middle * rates[0].flops
    return [
        way.weights,
        way.batches,
        rates[0].attention,
        rates[0].micro_batch,
        f"{middle:,.0f} ({min(found):,.0f} to {max(found):,.0f})",
        f"{flops / 1e12:,.4g}",
        f"{flops / reached:.1%}",
        f"{max(rate.memory for rate in rates) / 1e9:.1f}",
    ]


def peak(size: int, device: Device) -> float:
    """FLOP/s of a bfloat16 product of two square matrices, the fastest of a few rounds."""
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    found = []
    for _ in range(ROUNDS_OF_PEAK + 1):  # the first one chooses kernels
        wait(device)
        started = time.perf_counter()
        for _ in range(PRODUCTS):
            torch.mm(left, right)
        wait(device)
        found.append(2 * size**3 * PRODUCTS / (time.perf_counter() - started))
    return max(found[1:])


def wait(device: Device) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def available(device: Device) -> str:
    """The attention for rows of different lengths whose kernel is installed; sdpa without one."""
    from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

    if device == "cuda" and is_flash_attn_3_available():
        return "flash_attention_3"
    return "flash_attention_2" if device == "cuda" and is_flash_attn_2_available() else "sdpa"


def flops_of_a_token(matrices: int, adapters: int | None) -> int:
    """FLOPs to learn from one token; `adapters` is None where all weights are trained."""
    return 6 * matrices if adapters is None else 4 * matrices + 6 * adapters


def weights_in_products(network: torch.nn.Module) -> int:
    """Weights of all linear layers, the head included, without those of adapters."""
    layers = (module for name, module in network.named_modules() if "lora_" not in name)
    return sum(layer.weight.numel() for layer in layers if type(layer) is torch.nn.Linear)


class Bench:
    """A base and rows, and runs over them."""

    def __init__(self, folder: Path, sizes: Sizes, device: Device, attention: str) -> None:
        self._folder = folder
        self._sizes = sizes
        self._device = device
        self._attention = attention
        self.weights = language_model(folder / "base", sizes, device, attention)
        chance = random.Random(0)
        short = [_length(chance, sizes.length) for _ in range(sizes.rows)]
        write_rows(folder / "short", short, chance, sizes)
        # Longer than a row may be, and cut there.
        write_rows(folder / "dense", [sizes.length + 8] * max(64, sizes.rows // 8), chance, sizes)

    def run(self, way: Way) -> Rate:
        """Train in that way, and forget what was trained."""
        if self._device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        task = self._task(way)
        trainer = method_of("sft").trainer(task)
        tokens, clock = Tokens(1), Clock(self._device, self._sizes.skipped)
        clock.tokens = tokens
        watch(trainer, tokens, SimpleNamespace(kept=lambda: "nothing is kept"))  # type: ignore[arg-type]
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clock)
        trainer.train()
        found = Rate(
            tokens=clock.rate,
            flops=flops_of(trainer, way),
            attention=str(trainer.model.config._attn_implementation),
            micro_batch=task.batches.micro_batch,
            memory=torch.cuda.max_memory_allocated() if self._device == "cuda" else 0,
        )
        del trainer, clock, task
        gc.collect()
        if self._device == "cuda":
            torch.cuda.empty_cache()
        return found

    def _task(self, way: Way) -> Task:
        sizes, data = self._sizes, self._folder / ("dense" if way.batches == "dense" else "short")
        config = TrainConfig.model_validate(
            {
                "method": "sft",
                "base": str(self._folder / "base"),
                "data": str(data),
                "store": str(self._folder / "store"),
                "name": "bench",
                "lora": {"rank": sizes.rank} if way.weights == "LoRA" else None,
                "optimisation": {
                    "global_batch": sizes.global_batch,
                    "micro_batch": sizes.micro_batch,
                    "max_steps": sizes.steps,
                    "precision": "bfloat16",
                },
                "sequence": {"max_length": sizes.length, "packing": way.batches == "packed"},
            }
        )
        return Task(
            config=config,
            base=self._folder / "base",
            base_revision="made",
            splits=Splits(data / "train.parquet", data / "validation.parquet", f"{data.name:0<64}", data / "cache"),
            output=self._folder / "output",
            batches=batches.plan(sizes.global_batch, sizes.micro_batch, 1),
            place=Place(self._device, "bfloat16", 0, 1, _at_once),
            deepspeed=None,
        )


def flops_of(trainer: Trainer, way: Way) -> int:
    """FLOPs of a token of this run."""
    network = trainer.accelerator.unwrap_model(trainer.model)
    trained = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    return flops_of_a_token(weights_in_products(network), trained if way.weights == "LoRA" else None)


class Clock(TrainerCallback):  # type: ignore[misc]
    """Times the steps after the first ones; nothing is saved or evaluated."""

    tokens: Tokens

    def __init__(self, device: Device, skipped: int) -> None:
        self._device = device
        self._skipped = skipped
        self._started = self._before = 0.0
        self.rate = math.nan
        """Tokens a second."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == self._skipped:
            wait(self._device)
            self._before, self._started = self.tokens.total, time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        control.should_save = control.should_evaluate = False
        if state.global_step == state.max_steps:
            wait(self._device)
            self.rate = (self.tokens.total - self._before) / (time.perf_counter() - self._started)


def language_model(folder: Path, sizes: Sizes, device: Device, attention: str) -> int:
    """Save a Llama of random bfloat16 weights and a tokeniser of words; returns the number of weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(("<pad>", "<end>", *_words(sizes)))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
    config = LlamaConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        max_position_embeddings=sizes.length,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        dtype="bfloat16",
    )
    torch.manual_seed(0)
    with torch.device(device):
        network = LlamaForCausalLM(config).to(torch.bfloat16)
    network.save_pretrained(folder)
    fast.save_pretrained(folder)
    # Trainers load a base by its path: what it says of attention holds.
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "attn_implementation": attention}))
    return sum(weight.numel() for weight in network.parameters())


def write_rows(folder: Path, lengths: Sequence[int], chance: random.Random, sizes: Sizes) -> None:
    """Rows of so many tokens, a third of each the prompt, as prepared data; a few more for validation."""
    folder.mkdir()
    words = _words(sizes)
    for split, wanted in (("train", lengths), ("validation", lengths[:4])):
        texts = [chance.choices(words, k=length - 1) for length in wanted]  # the end has a token
        rows = [
            {"prompt": " ".join(text[: len(text) // 3]), "completion": " ".join(text[len(text) // 3 :])}
            for text in texts
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")


def _words(sizes: Sizes) -> list[str]:
    return [f"w{number}" for number in range(sizes.vocabulary - 2)]


def _length(chance: random.Random, longest: int) -> int:
    """Tokens of an instruction with its answer: most are far shorter than the longest."""
    return min(longest, max(8, round(chance.lognormvariate(math.log(longest / 8), 0.8))))


def _at_once(make: Callable[[], object]) -> None:
    make()
