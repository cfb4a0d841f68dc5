"""Analysers by language: each is made once, since it is slow to make and remembers the words it has seen."""

from __future__ import annotations

import threading

from ray_jobs.index.analysis import Analyzer


class Analyzers:
    """Safe to call from several threads."""

    def __init__(self) -> None:
        self._made: dict[str, Analyzer] = {}
        self._lock = threading.Lock()

    def __call__(self, language: str) -> Analyzer:
        """The analyser of a language. Raises UsageError for a language that there is none for."""
        with self._lock:
            if language not in self._made:
                self._made[language] = Analyzer(language)
            return self._made[language]
