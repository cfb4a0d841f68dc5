"""From the order of a bucket to that of folders: everything once, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ray_jobs.corpus.key_order import by_component

names = st.lists(st.text("a-./0é\U00010400", min_size=1, max_size=3), min_size=1, max_size=4).map("/".join)


def components(name: str) -> list[str]:
    return name.split("/")


class Bucket:
    """Lists names in the order of their bytes, and counts."""

    def __init__(self, found: set[str]) -> None:
        self.names = sorted(found, key=str.encode)
        self.listings: list[str] = []

    def below(self, prefix: str) -> Iterator[str]:
        self.listings.append(prefix)
        return (name for name in self.names if name.startswith(prefix))


@given(found=st.sets(names, max_size=40), held=st.integers(0, 5))
@example({"a-1", "a-2", "a-3", "a/b-1", "a/b-2", "a/b/c", "a.d"}, 1)
@example({"a", "a/b", "a-/b", "a-"}, 0)
def test_names_come_once_in_the_order_of_their_components(found: set[str], held: int) -> None:
    assert list(by_component(Bucket(found).below, str, held)) == sorted(found, key=components)


@given(found=st.sets(names, max_size=40))
def test_one_listing_is_enough_where_few_wait(found: set[str]) -> None:
    bucket = Bucket(found)
    list(by_component(bucket.below, str))
    assert bucket.listings == [""]


@pytest.mark.parametrize("folder", [True, False])
def test_files_that_all_wait_for_a_folder_are_let_go_by_one_more_listing(folder: bool) -> None:
    files = {f"part-{number:05d}" for number in range(5_000)}
    bucket = Bucket(files | ({"part/x"} if folder else set()))
    ahead = most = 0

    def counted(prefix: str) -> Iterator[str]:
        nonlocal ahead, most
        for name in bucket.below(prefix):
            ahead += 1
            most = max(most, ahead)
            yield name

    listed = []
    for name in by_component(counted, str, 100):
        ahead -= 1
        listed.append(name)
    assert listed == sorted(bucket.names, key=components)
    assert most <= 102
    assert bucket.listings == ["", "part/"]
