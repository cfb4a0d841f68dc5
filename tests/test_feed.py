from __future__ import annotations

import threading

import pytest

from ray_jobs.answer.feed import Feed
from ray_jobs.errors import ModelError


def test_pieces_come_in_order_until_the_maker_ends() -> None:
    feed = Feed[int]()
    for piece in range(3):
        feed.put(piece)
    feed.end()
    assert list(feed) == [0, 1, 2]


def test_an_error_of_the_maker_reaches_the_taker_behind_the_pieces_before_it() -> None:
    feed = Feed[int]()
    feed.put(1)
    feed.end(ModelError("broken"))
    pieces = iter(feed)
    assert next(pieces) == 1
    with pytest.raises(ModelError, match="broken"):
        next(pieces)


def test_closing_wakes_a_taker_that_waits_and_tells_the_maker_once() -> None:
    told: list[bool] = []
    feed = Feed[int](lambda: told.append(feed.closed))
    taken: list[int] = []
    taker = threading.Thread(target=lambda: taken.extend(feed))
    taker.start()
    feed.close()
    feed.close()
    taker.join(20)
    assert not taker.is_alive()
    assert taken == []
    assert told == [True]


def test_what_is_left_of_a_closed_feed_is_not_taken() -> None:
    feed = Feed[int]()
    feed.put(1)
    feed.put(2)
    pieces = iter(feed)
    assert next(pieces) == 1
    feed.close()
    assert list(pieces) == []
