"""A helper that knows one more format, `.hostile`: its files say, line by line, what happens to whoever reads them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import BinaryIO

import pytest

from ray_jobs.corpus import apart, formats, helper, readers
from ray_jobs.corpus.document import RawDocument, Reject
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.planning import SourcePart

KEPT: list[bytearray] = []


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of that format are read, by a helper that knows it."""
    monkeypatch.setitem(formats.FORMATS, ".hostile", "hostile")
    monkeypatch.setitem(readers.READERS, "hostile", __name__)
    monkeypatch.setattr(apart, "MODULE", __name__)


def read(stream: BinaryIO, part: SourcePart, limits: Limits) -> Iterator[RawDocument | Reject]:
    for line in stream.read().decode().splitlines():
        match line.split():
            case ["say", text]:
                yield RawDocument(text, id=text)
            case ["tell-process"]:
                yield RawDocument(str(os.getpid()))
            case ["sleep"]:
                time.sleep(3600)
            case ["spin"]:
                while True:
                    pass
            case ["crash"]:
                os.kill(os.getpid(), signal.SIGSEGV)
            case ["leave"]:
                os._exit(3)
            case ["take", size]:
                bytearray(int(size))
            case ["keep", size]:
                KEPT.append(bytearray(int(size)))
            case ["descend"]:
                _descend()


def _descend() -> None:
    _descend()


if __name__ == "__main__":
    readers.READERS["hostile"] = "hostile_helper"
    helper.main()
