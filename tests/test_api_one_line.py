from __future__ import annotations

import re

from hypothesis import assume, given
from hypothesis import strategies as st

from ray_jobs.errors import UsageError
from ray_jobs.index.filters import parse
from serve.api.one_line import on_one_line

expressions = st.text(st.sampled_from("ab =<'\"()名字1\n\t\\"), max_size=90)


@given(expressions)
def test_the_caret_stands_before_the_character_that_the_message_counts(expression: str) -> None:
    try:
        parse(expression)
    except UsageError as error:
        message = on_one_line(str(error))
    else:
        assume(False)
    assert "\n" not in message
    counted = re.match(r"filter, character (\d+)", message)
    assert counted is not None
    place = int(counted[1]) - 1
    _, _, after = message.rpartition("at the ^ in: ")[2].partition("^")
    expected = "".join(" " if character.isspace() else character for character in expression[place : place + 60])
    assert after == expected.rstrip()


@given(st.lists(st.text(st.characters(exclude_characters="\n")), min_size=1, max_size=4))
def test_any_other_message_only_loses_its_line_breaks(lines: list[str]) -> None:
    assume(not (len(lines) == 3 and lines[2].strip() == "^"))
    assert on_one_line("\n".join(lines)) == " ".join([lines[0].strip(), *(line.strip() for line in lines[1:])])
