"""How fast does Tandem's code train on a GPU, and how much of the GPU's matrix speed is that?

    python tests/bench/training_gpu.py --output FILE.json      # also FILE.md; one GPU, no Ray, no network
    python tests/bench/training_gpu.py --smoke                 # that it runs: a tiny model on the CPU, about a minute

Supervised fine-tuning of a Llama of a billion random weights, made on the spot, by the trainers that
ray_jobs.train.methods builds for a worker: all weights, and LoRA over all linear layers; fully dense rows, short rows
packed, and the same padded. bfloat16 arithmetic over float32 weights, without gradient checkpointing.

Tokens are those of text; padding does not count. FLOPs of a token, with N weights that take part in matrix products
(all linear layers and the head, not the table of embeddings) and A weights of adapters:

    all weights   6 N         2 N forward, 4 N backward (Kaplan et al. 2020, Scaling Laws, section 2.1)
    LoRA          4 N + 6 A   as above, but that frozen weights have no gradient: 2 N forward, 2 N for activations

The share of the peak is that of model FLOPs (Chowdhery et al. 2022, PaLM, appendix B) against a large bfloat16 product
measured in the same run. Attention's own products are left out, so that the share is a lower bound. Packed rows run on
kernels for rows of different lengths (flash attention) where its package is installed; else on sdpa with a mask over
the whole micro-batch, which is then one packed row. The table says which attention the model had.

Not measured: several GPUs, ZeRO, checkpoints, evaluation, start-up.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from table import Section, markdown, stamped, update

NAME = "training_gpu"
ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Sizes:
    """What is trained and how long; every field is an argument."""

    hidden: int = 2048
    intermediate: int = 8192
    layers: int = 16
    heads: int = 32
    kv_heads: int = 8
    vocabulary: int = 32_000
    length: int = 2048  # tokens of a row at most
    rows: int = 4000
    micro_batch: int = 8  # rows
    global_batch: int = 16
    steps: int = 12
    skipped: int = 3  # of the steps: the first ones, which choose kernels and take memory
    rounds: int = 2
    rank: int = 16  # of the adapter
    matrix: int = 16_384  # rows and columns of the product that tells the peak


TINY = Sizes(
    hidden=64, intermediate=128, layers=2, heads=4, kv_heads=2, vocabulary=500, length=64, rows=200, micro_batch=2,
    global_batch=4, steps=4, skipped=1, rounds=1, rank=4, matrix=256,
)  # fmt: skip


def main(given: list[str] | None = None) -> int:
    """Measure, write and print; 0 on success, 2 where there is no GPU."""
    options, sizes = _parsed(given)
    import torch

    if not options.smoke and not torch.cuda.is_available():
        print(
            "error: torch finds no GPU here; run it where there is one, or set --smoke to try it out", file=sys.stderr
        )
        return 2
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    sys.path.insert(0, str(ROOT))  # what is measured is the tree that this file lies in, installed or not
    import training_gpu_runs as runs

    device = "cpu" if options.smoke else "cuda"
    with tempfile.TemporaryDirectory() as folder:
        tables = runs.tables(Path(folder), sizes, device, options.attention)
    section = _named(stamped(NAME, tables), device)
    if options.output is not None:
        update([section], options.output.absolute().parent, options.output.stem)
    print("\n\n".join(markdown(table) for table in tables))
    return 0


def _named(section: Section, device: str) -> Section:
    """The section with the name of its GPU."""
    import torch

    if device == "cpu":
        return section
    return replace(section, machine=f"one {torch.cuda.get_device_name()}, {section.machine}")


def _parsed(given: list[str] | None) -> tuple[argparse.Namespace, Sizes]:
    parser = argparse.ArgumentParser(description="Measure fine-tuning on one GPU.")
    parser.add_argument("--output", type=Path, help="a JSON file to write; Markdown goes beside it")
    parser.add_argument("--smoke", action="store_true", help="a tiny model on the CPU: only that it runs")
    parser.add_argument("--attention", default="auto", help="as transformers names it; auto: flash attention, or sdpa")
    for name, value in vars(Sizes()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"default {value}")
    options = parser.parse_args(given)
    if options.output is None and not options.smoke:
        parser.error("--output is missing: name a JSON file, such as gpu.json")
    if options.output is not None and options.output.suffix != ".json":
        parser.error(f"--output {options.output}: expected a name that ends in .json")
    known = TINY if options.smoke else Sizes()
    chosen = {name: getattr(options, name) for name in vars(known) if getattr(options, name) is not None}
    sizes = replace(known, **chosen)
    if not 0 <= sizes.skipped < sizes.steps:
        parser.error(f"--skipped {sizes.skipped}: expected fewer than --steps {sizes.steps}")
    return options, sizes


if __name__ == "__main__":
    sys.exit(main())
