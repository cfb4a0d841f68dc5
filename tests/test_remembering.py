"""An embedder that remembers."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.models.remembering import RememberingEmbedder


class Counting:
    """Embeds a text as its length and its first character; counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return self.encode_documents(texts)

    def encode_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.asked += texts
        return np.array([[len(text), ord(text[0])] for text in texts], np.float32).reshape(len(texts), 2)


texts = st.lists(st.text("abc", min_size=1, max_size=2), max_size=12)


@given(calls=st.lists(texts, max_size=6), most=st.integers(1, 8))
def test_vectors_are_those_of_the_embedder_in_the_order_asked(calls: list[list[str]], most: int) -> None:
    remembering = RememberingEmbedder(Counting(), most)
    for call in calls:
        assert remembering.encode_documents(call).tolist() == Counting().encode_documents(call).tolist()
        assert len(remembering._known) <= most


def test_a_text_is_computed_once_and_a_forgotten_one_again() -> None:
    counting = Counting()
    remembering = RememberingEmbedder(counting, 2)
    remembering.encode_documents(["a", "b", "a"])
    remembering.encode_documents(["b", "a"])
    assert counting.asked == ["a", "b"]
    remembering.encode_documents(["c"])  # "b" was used before "a"
    remembering.encode_documents(["a"])
    remembering.encode_documents(["b"])
    assert counting.asked == ["a", "b", "c", "b"]


def test_threads_get_the_vectors_of_their_own_texts() -> None:
    remembering = RememberingEmbedder(Counting(), 5)
    wrong: list[str] = []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(200):
            call = [str(number) for number in random.integers(0, 20, 5)]
            if remembering.encode_documents(call).tolist() != Counting().encode_documents(call).tolist():
                wrong.append(str(call))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
