"""What must hold of every request under load, whatever was killed or published meanwhile."""

from __future__ import annotations

from load import Load, Outcome, versions_in


def check(load: Load, contents: dict[int, int] | None = None) -> None:
    """Nothing failed, nothing hung, what is degraded says so, and no answer has two editions in it."""
    for kind in ("search", "reranked", "chat"):
        outcomes = load.of(kind)
        assert {outcome.status for outcome in outcomes} <= {200}, [o for o in outcomes if o.status != 200][:3]
    for outcome in load.of("stream"):
        assert outcome.complete
    for outcome in load.of("reranked"):
        scored = ["rerank" in hit["scores"] for hit in outcome.body["hits"]]
        assert all(scored) or not any(scored)
        assert all(scored) != ("rerank" in outcome.body["degraded"])
    for outcome in [*load.of("search"), *load.of("reranked")]:
        coverage = outcome.body["coverage"]
        assert coverage["degraded"] == (coverage["partitions_ok"] < coverage["partitions_total"])
        assert coverage["degraded"] == ("partition" in outcome.body["degraded"])
        if not coverage["degraded"]:
            assert len(outcome.body["hits"]) == 5
        _check_edition(outcome, [hit["text"] for hit in outcome.body["hits"]], outcome.body["snapshot"], contents)
    for outcome in load.of("chat"):
        texts = [source["text"] for source in outcome.body["sources"]]
        _check_edition(outcome, texts, outcome.body["snapshot"]["number"], contents)


def _check_edition(outcome: Outcome, texts: list[str], snapshot: int, contents: dict[int, int] | None) -> None:
    editions = versions_in(texts)
    assert len(editions) <= 1, outcome
    if contents is not None and editions:
        assert editions == {contents[snapshot]}
