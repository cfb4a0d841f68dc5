"""Quality filters: each rule catches what it is for, prose passes, and a threshold can be moved or switched off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ray_jobs.corpus.document import Document, RawDocument, make_document
from ray_jobs.corpus.language import LANGUAGES, _classifier
from ray_jobs.corpus.measures import Measured
from ray_jobs.corpus.quality import PRESETS, RULES, Filters

PROSE = (
    "The harbour of the town lies in a wide bay that looks to the west. Fishing boats leave before dawn and come back "
    "with the tide, and their catch is sold at the market by noon. In winter storms the sea wall has to be watched "
    "through the night, for it was built long ago and nobody trusts it. Two engineers have drawn plans for a new one. "
    "They want to use stone from the old quarry, because it is near and costs little.\n\n"
    "Visitors arrive in June. Most of them stay for a week, walk along the cliffs, and eat what the boats bring home."
)
FLAT = PROSE.replace("\n\n", " ")
WEB = Filters(preset="web")
BAD = {
    "too-short": "Only a few words stand here.",
    "word-length": PROSE.replace(" ", " a b ").replace(".", " ."),
    "symbols": PROSE.replace(" ", " # "),
    "few-letters": PROSE + " 12 34 56 78" * 20 + " 1 2 3 4 5 6 7" * 30,
    "bullets": "\n".join(f"- {line}." for line in FLAT.split(". ")),
    "ellipses": "\n".join(f"{line}..." for line in PROSE.split(". ")) + ". And so on. It ends.",
    "few-sentences": PROSE.replace(".", ","),
    "repeated-lines": PROSE + "\nThe harbour of the town lies in a wide bay." * 8,
    "repeated-paragraphs": PROSE + "\n\nThe sea.\nIt is wide." * 4,
    "boilerplate": PROSE.split("\n")[0] + "\nAccept all cookies\nSign in\nTerms of use",
    "repeated-words": PROSE.replace(". ", ". The tide turns at noon and nobody looks. "),
    "few-stop-words": " ".join(f"Old grey boats leave early. Nets hang dry near pier number {n}." for n in range(40)),
}
KEYS = {
    "too-short": ["min_words"],
    "word-length": ["min_word_length", "max_word_length"],
    "symbols": ["max_symbols"],
    "few-letters": ["min_alphabetic"],
    "bullets": ["max_bullets"],
    "ellipses": ["max_ellipses"],
    "few-sentences": ["min_sentences"],
    "repeated-lines": ["max_repeated_lines"],
    "repeated-paragraphs": ["max_repeated_paragraphs"],
    "boilerplate": ["max_boilerplate"],
    "repeated-words": ["max_repeated_ngrams"],
    "few-stop-words": ["min_stop_words"],
}


def document(text: str, format: str = "txt") -> Document:
    return make_document(RawDocument(text), "a", "a", format)


def test_prose_passes_the_thresholds_of_the_web() -> None:
    assert WEB.broken_by(document(PROSE)) is None


@pytest.mark.parametrize("rule", BAD)
def test_each_rule_catches_what_it_is_for_and_lets_prose_pass(rule: str) -> None:
    alone = Filters.model_validate({key: PRESETS["web"][key] for key in KEYS[rule]})
    assert alone.broken_by(document(BAD[rule])) == rule
    assert alone.broken_by(document(PROSE)) is None
    assert WEB.broken_by(document(BAD[rule])) is not None


def test_a_page_that_is_too_long_and_one_of_another_language() -> None:
    assert Filters(max_words=20).broken_by(document(PROSE)) == "too-long"
    german = "Der Hafen der Stadt liegt in einer weiten Bucht, die nach Westen schaut. Die Boote fahren früh hinaus."
    assert Filters(languages=("en",)).broken_by(document(german)) == "language"
    assert Filters(languages=("de", "en")).broken_by(document(german)) is None
    assert Filters(languages=("en",)).broken_by(document(PROSE)) is None


def test_code_and_empty_text_pass_and_a_script_without_spaces_is_counted_by_characters() -> None:
    assert WEB.broken_by(document("x = 1", "pydoc")) is None
    assert WEB.broken_by(document("  \n")) is None
    chinese = (
        "港口位于西面的海湾。渔船在黎明前出海，随着潮水回来。中午在市场上出售他们的渔获。冬天的风暴中必须整夜看守海堤。"
    )
    assert WEB.broken_by(document(chinese)) is None


@pytest.mark.parametrize("key", sorted(PRESETS["web"]))
def test_null_switches_a_rule_of_the_preset_off(key: str) -> None:
    assert WEB.value(key) is not None
    assert Filters.model_validate({"preset": "web", key: None}).value(key) is None


def test_the_languages_that_can_be_asked_for_are_those_of_the_model() -> None:
    assert sorted(LANGUAGES) == sorted(_classifier().labels)


def test_nothing_is_filtered_unless_asked() -> None:
    assert not Filters().on
    assert [Filters().broken_by(document(text)) for text in BAD.values()] == [None] * len(BAD)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"min_words": 9, "max_words": 8}, "min_words=9 is above max_words=8"),
        ({"preset": "web", "max_words": 8}, "min_words=50 is above max_words=8"),
        ({"languages": ["english"]}, "'english' is no language that is told apart"),
        ({"max_repeated_ngrams": {11: 0.1}}, "runs of 11 words: expected 2 to 10"),
        ({"max_bullets": 2}, "less than or equal to 1"),
    ],
)
def test_impossible_thresholds_are_refused(keys: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Filters.model_validate(keys)


@given(st.text(max_size=400))
def test_every_measure_of_any_text_is_a_share_or_a_count(text: str) -> None:
    measured = Measured(text)
    shares = [measured.alphabetic, measured.bullets, measured.ellipses, measured.boilerplate]
    shares += [measured.repeated_lines, measured.repeated_paragraphs, *map(measured.repeated, range(2, 11))]
    assert all(0 <= share <= 1 for share in shares)
    assert min(measured.words, measured.sentences, measured.stop_words, measured.word_length, measured.symbols) >= 0


@given(st.lists(st.sampled_from("abcde"), max_size=60), st.integers(2, 10))
def test_repetition_is_what_counting_every_run_finds(words: list[str], length: int) -> None:
    runs = [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]
    often = [run for run in set(runs) if runs.count(run) > 1]
    if length <= 4:
        expected = max((runs.count(run) * length for run in often), default=0) / max(1, len(words))
    else:
        covered = {i + j for i, run in enumerate(runs) if run in often for j in range(length)}
        expected = len(covered) / max(1, len(words))
    assert Measured(" ".join(words)).repeated(length) == pytest.approx(min(expected, 1) if length > 4 else expected)


@given(st.text(st.sampled_from("ab .\n#-"), max_size=200), st.sampled_from(sorted(RULES)))
def test_the_rule_that_is_named_is_the_first_that_is_broken(text: str, rule: str) -> None:
    broken = WEB.broken_by(document(text))
    if broken is not None:
        order = list(RULES)
        measured = Measured(document(text).text)
        assert RULES[broken](measured, WEB)
        assert not any(RULES[name](measured, WEB) for name in order[: order.index(broken)])
