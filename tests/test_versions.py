"""Which version answers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve.versions import choose

numbers = st.sets(st.integers(1, 6), max_size=4)
held = st.lists(st.lists(numbers, max_size=3), max_size=4)


@given(current=st.none() | st.integers(1, 6), held=held)
def test_the_version_never_goes_back_and_goes_on_only_to_what_every_replica_holds(
    current: int | None, held: list[list[set[int]]]
) -> None:
    chosen = choose(current, held)
    replicas = [replica for partition in held for replica in partition]
    if chosen != current:
        assert chosen is not None
        assert replicas
        assert all(chosen in replica for replica in replicas)
        assert current is None or chosen > current


@given(held=held.filter(lambda partitions: any(partitions)))
def test_the_newest_version_in_common_is_chosen(held: list[list[set[int]]]) -> None:
    replicas = [replica for partition in held for replica in partition]
    common = set.intersection(*replicas)
    assert choose(None, held) == max(common, default=None)
