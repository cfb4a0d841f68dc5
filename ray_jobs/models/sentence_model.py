"""Reading a sentence-transformers model: its modules, and what they say of themselves.

Guaranteed: pooling, dense layers, normalisation, prompts and maximum length are the model's own. Not covered, and
refused with ModelError: models whose first module is not a transformer with a fast tokeniser (bags of words, static
embeddings, images), chat templates, and similarities other than cosine and dot product.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ray_jobs.errors import ModelError
from ray_jobs.models.engine import EncoderSpec, Similarity
from ray_jobs.models.resolve import ResolvedModel
from ray_jobs.models.token_limit import max_tokens, position_limit

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def load_sentence_model(model: ResolvedModel, device: str) -> SentenceTransformer:
    """The model in float32 on `device`, ready for inference, from local files only."""
    from sentence_transformers import SentenceTransformer

    try:
        with quiet_transformers():
            loaded = SentenceTransformer(str(model.path), device=device, local_files_only=True)
    except Exception as error:
        # Every architecture fails in its own way here: the reason is kept, the user gets one line.
        raise ModelError(
            f"model {model.name!r} in {str(model.path)!r} cannot be loaded as a sentence-transformers model "
            f"({type(error).__name__}: {_first_line(error)}): check the folder or choose another model"
        ) from error
    return loaded.float().eval()


def describe(model: SentenceTransformer, name: str) -> EncoderSpec:
    """The specification of a loaded model; ModelError if Tandem cannot run it as it wants to be run."""
    first = model[0]
    backend = getattr(getattr(first, "tokenizer", None), "backend_tokenizer", None)
    if backend is None or not hasattr(first, "auto_model") or "message" in first.modality_config:
        raise ModelError(
            f"model {name!r} starts with {type(first).__name__}, expected a text transformer with a fast tokeniser "
            "and no chat template: choose another model"
        )
    similarity = str(model.similarity_fn_name)
    if similarity not in ("cosine", "dot"):
        raise ModelError(f"model {name!r} has similarity={similarity!r}, expected cosine or dot: choose another model")
    checked: Similarity = "dot" if similarity == "dot" else "cosine"
    limit = position_limit(first.auto_model)
    return EncoderSpec(
        dimension=int(model.get_embedding_dimension()),
        max_tokens=max_tokens(first.tokenizer.model_max_length, limit),
        position_limit=limit,
        normalized=type(model[-1]).__name__ == "Normalize" and model.truncate_dim is None,
        similarity=checked,
        query_prompt=query_prompt(model),
        document_prompt=document_prompt(model),
        pad_id=int(first.tokenizer.pad_token_id or 0),
        pad_left=first.tokenizer.padding_side == "left",
        segments="token_type_ids" in first.tokenizer.model_input_names,
        pools_prompt=all(getattr(module, "include_prompt", True) for module in model),
    )


def query_prompt(model: SentenceTransformer) -> str:
    """What `encode_query` of sentence-transformers puts before a text."""
    return _prompt(model, "query")


def document_prompt(model: SentenceTransformer) -> str:
    """What `encode_document` of sentence-transformers puts before a text: the first of these names that is there.

    A model is loaded with a `document` of "" where it names none itself, so that its `passage` stays unused.
    """
    return _prompt(model, "document", "passage", "corpus")


def tokenizer_json(model: SentenceTransformer) -> str:
    """The tokeniser as it stands after loading, in the format of `tokenizer.json`."""
    text: str = model[0].tokenizer.backend_tokenizer.to_str()
    return text


def run_modules(model: SentenceTransformer, features: dict[str, Any]) -> Any:
    """Run every module in order: the sentence embedding, a float32 tensor of shape (rows, dimension).

    What follows the transformer computes in float32 whatever the precision of the transformer: pooling in bfloat16
    would lose more than the network does.
    """
    for position, module in enumerate(model):
        features = module(features)
        if position == 0:
            features = {key: value.float() if _is_real(value) else value for key, value in features.items()}
    return features["sentence_embedding"][:, : model.get_embedding_dimension()]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bar of transformers' own across a job's, and no advice on training, while a model is loaded."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _is_real(value: Any) -> bool:
    return bool(getattr(value, "is_floating_point", lambda: False)())


def _prompt(model: SentenceTransformer, *names: str) -> str:
    for name in names:
        if name in model.prompts:
            return model.prompts[name] or ""
    return model.prompts.get(model.default_prompt_name or "", "") or ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
