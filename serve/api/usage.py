"""How much text went into an answer and came out of it.

Not guaranteed: that it is what a model's tokeniser counts; generators do not tell that, and a reader has no tokens of
its own. Words and marks are counted, of which there are somewhat fewer.
"""

from __future__ import annotations

import re

from serve.api.shapes.chat_reply import Usage
from serve.messages import GenerateCall

_TOKEN = re.compile(r"\w+|[^\w\s]")


def usage_of(call: GenerateCall, answer: str) -> Usage:
    """What was given to the generator, and what it answered."""
    given = (*(message.content for message in call.request.messages), *(passage.text for passage in call.passages))
    prompt, completion = sum(map(_count, given)), _count(answer)
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def _count(text: str) -> int:
    return sum(1 for _ in _TOKEN.finditer(text))
