"""An adapter of a network with a head, merged into its base: what a reader and a reranker have in common.

Guaranteed: every weight of the adapter is one of the network's and the other way round; a head that the base lacks
comes with the adapter, so that no weight of the result is random. Refused with ModelError: anything else. Weights may
be stored in half precision; they are merged in the precision in which the network was loaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray_jobs.errors import ModelError
from ray_jobs.models.resolve import ResolvedModel
from ray_jobs.models.sentence_model import quiet_transformers

_PEFT_PREFIX = "base_model.model."
_LONGEST_REASON = 300


def merged(network: Any, untrained: set[str], base: ResolvedModel, adapter: ResolvedModel, output: str) -> Any:
    """`network`, which is of `base`, with the adapter merged into it.

    `untrained` are the weights of the network that the base does not have; `output` is what would be random if the
    adapter lacked them too.
    """
    try:
        from peft import PeftModel, get_peft_model_state_dict, load_peft_weights
    except ModuleNotFoundError as error:
        raise ModelError(f"model {adapter.name!r} is an adapter and needs PEFT: pip install peft") from error

    stored = set(load_peft_weights(str(adapter.path), device="cpu"))
    adapted = PeftModel.from_pretrained(network, str(adapter.path))
    foreign = stored ^ set(get_peft_model_state_dict(adapted))
    if foreign:
        raise ModelError(
            f"adapter {adapter.name!r} does not fit its base {base.name!r}: {len(foreign)} weights such as "
            f"{min(foreign)!r} are only in one of them; name the base it was trained on in adapter_config.json"
        )
    uncovered = untrained - {name.removeprefix(_PEFT_PREFIX) for name in stored}
    if uncovered:
        raise ModelError(
            f"adapter {adapter.name!r} and its base {base.name!r} both lack {min(uncovered)!r}: {output} would be "
            "random; train the adapter with its head among modules_to_save"
        )
    return adapted.merge_and_unload()


@contextmanager
def explained(name: str, kind: str) -> Iterator[None]:
    """Turn whatever a library says of a model that is no `kind` into a ModelError of one line; nothing is printed."""
    try:
        with quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ModelError:
        raise
    except Exception as error:
        # Every architecture fails in its own way here: the reason is kept, the user gets one line.
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise ModelError(
            f"model {name!r} cannot be loaded as a {kind} ({type(error).__name__}: {reason}): check the folder "
            "or choose another model"
        ) from error
