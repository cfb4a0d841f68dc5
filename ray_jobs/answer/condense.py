"""A conversation's last question, made such that it can be searched for without the turns before it.

Guaranteed by the rule: a question that stands alone comes back as it is; one that does not is followed by content
words of the user's earlier turns, the latest first; nothing is made up. What a model writes is taken only when it keeps
most of the question's own words and uses no others than the conversation's; else the rule is.

Not guaranteed: that "it" is understood; the rule only brings the words back that a search needs. It knows the little
words and the pronouns of English alone, so in other languages only very short questions are completed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ray_jobs.answer.engine import Message
from ray_jobs.errors import UsageError
from ray_jobs.index.analysis import Analyzer

_ENOUGH = 2
"""Content words with which a question that refers to nothing stands alone."""

_ENOUGH_WITH_REFERENCE = 5
_ADDED_AT_MOST = 8
_LONGEST = 400
_KEPT = 0.5
_TURNS_SHOWN = 6
_TURN_LENGTH = 800
_WORD = re.compile(r"[\w.\-]*\w")
_REFERENCE = re.compile(
    r"\b(?:it|its|itself|they|them|their|this|that|these|those|he|him|his|she|her|there|one|ones|same|former|latter)\b"
    r"|^(?:and|or|but|so|then|also|what about|how about)\b",
    re.IGNORECASE,
)
_LABEL = re.compile(r"^(?:stand-?alone |rewritten |last )?(?:question|query)\s*:\s*", re.IGNORECASE)
_INSTRUCTIONS = (
    "Rewrite the last question of the conversation so that it can be understood alone: replace words such as 'it' by "
    "what they stand for. Keep its language and its words. Reply with the question only."
)


def condense_by_rule(messages: Sequence[Message], analyzer: Analyzer) -> str:
    """The last question, with content words of the earlier ones where it has too few of its own.

    Raises UsageError when the conversation does not end with a question of the user.
    """
    question = last_question(messages)
    own = content_words(question, analyzer)
    if len(own) >= (_ENOUGH_WITH_REFERENCE if _REFERENCE.search(question) else _ENOUGH):
        return question
    added: dict[str, str] = {}
    for message in reversed(messages[:-1]):
        if message.role == "user":
            for term, word in content_words(message.content, analyzer).items():
                if term not in own and len(added) < _ADDED_AT_MOST:
                    added.setdefault(term, word)
    return " ".join([question, *added.values()])


def condense_by_model(
    messages: Sequence[Message], analyzer: Analyzer, write: Callable[[Sequence[Message]], str]
) -> str:
    """The last question as a language model rewrites it, or by the rule when it writes nothing usable.

    `write` answers a prompt. A first question is returned without asking the model. Raises UsageError as the rule does.
    """
    question = last_question(messages)
    if not any(message.role == "user" for message in messages[:-1]):
        return question
    shown = [message for message in messages[:-1] if message.role != "system"][-_TURNS_SHOWN:]
    turns = "\n".join(f"{message.role}: {' '.join(message.content.split())[:_TURN_LENGTH]}" for message in shown)
    prompt = (
        Message("system", _INSTRUCTIONS),
        Message("user", f"Conversation:\n{turns}\n\nLast question: {question}"),
    )
    written = _first_line(write(prompt))
    return written if _is_usable(written, question, shown, analyzer) else condense_by_rule(messages, analyzer)


def last_question(messages: Sequence[Message]) -> str:
    """The last turn. Raises UsageError when it is not the user's, or empty."""
    if not messages or messages[-1].role != "user" or not messages[-1].content.strip():
        raise UsageError("messages: expected a conversation that ends with a question of role 'user'")
    return messages[-1].content.strip()


def content_words(text: str, analyzer: Analyzer) -> dict[str, str]:
    """Words that say what a text is about: the analysed form of each -> the word as it is written, in order."""
    found: dict[str, str] = {}
    for match in _WORD.finditer(text):
        if terms := analyzer.terms(match[0]):
            found.setdefault(terms[0], match[0])
    return found


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _LABEL.sub("", lines[0]).strip("\"'“”` ") if lines else ""


def _is_usable(written: str, question: str, turns: Sequence[Message], analyzer: Analyzer) -> bool:
    if not written or len(written) > max(_LONGEST, 2 * len(question)):
        return False
    asked = content_words(question, analyzer).keys()
    said = content_words(written, analyzer).keys()
    known = asked | content_words(" ".join(turn.content for turn in turns), analyzer).keys()
    return bool(said) and said <= known and len(asked & said) >= _KEPT * len(asked)
