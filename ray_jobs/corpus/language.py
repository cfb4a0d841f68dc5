"""The language of a text, by py3langid: character n-grams and naive Bayes (Lui and Baldwin 2012, "langid.py").

Guaranteed: the same text has the same language on every machine. Not guaranteed: that a text of a few words, or one of
several languages, is told right.
"""

from __future__ import annotations

from functools import cache
from typing import Any

CHARACTERS = 4_000  # of the begin of a text that are looked at

# Codes of ISO 639 that the model tells apart.
_CODES = """
ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu ext fa fi fo fr fuv fy ga
gcf gcr gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is it ja jv ka kab kik kk km kn ko ku ky la lb lg lij
ln lo lt ltg lv mg mk ml mn mr ms mt my ne nl nn no nso oc om or pa pcm pl ps pt qu ro ru rw sa sdh se si sk sl sn so
sq sr st sv sw ta te tg th tk tl tr tt ug uk ur uz uzs vec vi vo wa wuu xh yo yue zh zu zxx
"""
LANGUAGES = tuple(_CODES.split())


def language_of(text: str) -> str:
    """The code (ISO 639) of the language in which a text begins."""
    return str(_classifier().classify(text[:CHARACTERS])[0])


@cache
def _classifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)
