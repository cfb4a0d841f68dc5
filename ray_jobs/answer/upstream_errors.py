"""What went wrong with an OpenAI-compatible endpoint, in one line that says what to do."""

from __future__ import annotations

from ray_jobs.errors import ModelError

_LONGEST = 200


def explained(error: Exception, address: str, model: str, key_variable: str | None, key: str) -> ModelError:
    """A ModelError for whatever the client raised; the key does not stand in it, whatever the endpoint says."""
    import openai

    where = f"upstream {address}"
    if isinstance(error, openai.APIStatusError):
        return ModelError(f"{where}: {_of_status(error, model, key_variable, key)}")
    if isinstance(error, openai.APITimeoutError) or "Timeout" in type(error).__name__:
        return ModelError(f"{where}: was silent for too long: look whether it is overloaded, or raise silence_s")
    if isinstance(error, openai.APIConnectionError):
        return ModelError(f"{where}: cannot be reached: check base_url, and that it runs")
    said = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
    return ModelError(f"{where}: failed in the middle of an answer ({_safe(str(said), key)}): ask again")


def _of_status(error: object, model: str, key_variable: str | None, key: str) -> str:
    status = getattr(error, "status_code", 0)
    if status in (401, 403):
        place = f"the key in {key_variable}" if key_variable else "a request without a key; set api_key_env"
        return f"refuses {place} (status {status}): get a valid one"
    if status == 404:
        return f"has no model {model!r} at this address (status 404): check model and base_url"
    if status == 429:
        return "is full, or its limit for the key is reached (status 429): try again later"
    said = _safe(str(getattr(error, "message", "")), key)
    if status < 500:
        return f"refuses the request (status {status}: {said}): check model, context_tokens and max_new_tokens"
    return f"failed (status {status}): try again, and look at its log"


def _safe(text: str, key: str) -> str:
    hidden = text.replace(key, "***") if key else text
    return " ".join(hidden.split())[:_LONGEST]
