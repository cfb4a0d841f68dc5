"""The report of a run and its charts: everything is there, nothing of it is obeyed, and it can be read anywhere."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_browser import DESKTOP, PHONE, Words, opened
from playwright.sync_api import Browser
from train_runs import settings

from ray_jobs.reporting.charts import Interval, Series, interval_chart, line_chart
from ray_jobs.reporting.drawing import short, signed
from ray_jobs.reporting.parallel import Axis, parallel_chart
from ray_jobs.train.checkpoints import Checkpoint
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.plan import Plan
from ray_jobs.train.record import SECONDS
from ray_jobs.train.report import Left, render, speeds

pytest_plugins = ["page_fixtures"]

HOSTILE = (
    '</div></style></script><script>document.title="taken"</script><img src=x onerror="document.title=1">&amp;"\'>'
)
LOW_CONTRASTS = (Path(__file__).parent / "page_contrast.js").read_text(encoding="utf-8")


def row(name: str, role: str, metric: str, before: float, after: float, width: float) -> dict[str, Any]:
    delta = after - before
    ends = {"delta": delta, "low": delta - width, "high": delta + width, "rows": 300}
    return {"set": name, "role": role, "metric": metric, "before": before, "after": after, **ends}


def history(steps: int = 200) -> list[dict[str, Any]]:
    """Two attempts: the second goes on at step 100."""
    found: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        begun = 100 if step > 100 else 0
        found.append(
            {
                "step": step,
                "loss": 3 * math.exp(-step / 60) + 0.1,
                "learning_rate": 2e-4 * (1 - step / steps),
                "num_tokens": 4000.0 * step,
                SECONDS: 0.5 * (step - begun),
            }
        )
        if step % 50 == 0:
            found.append({"step": step, "eval_loss": 3 * math.exp(-step / 60) + 0.2, SECONDS: 0.5 * (step - begun)})
    return found


def page_of(
    text: str = "a word",
    evaluation: bool = True,
    samples: bool = True,
    log: list[dict[str, Any]] | None = None,
    resumed_at: int = 100,
    stopped: str | None = None,
) -> str:
    """A report in which `text` stands wherever a user's text may stand."""
    config = settings(
        "sft",
        Path("/bases") / text.replace("/", "|"),
        Path("/data"),
        Path("/store"),
        "model",
        lora={"rank": 8},
        replay={"data": text, "share": 0.2},
    )
    plan = Plan(
        config=TrainConfig.model_validate(config.model_dump()),
        store="/store",
        run="runs/model/1",
        base_revision="b" * 40,
        data_hash="d" * 64,
        train="datasets/x/train.parquet",
        validation="datasets/x/validation.parquet",
        device="cpu",
        precision="float32",
        replay="r",
        replay_hash="e" * 64,
    )
    checkpoint = Checkpoint(
        key="k", step=150, workers=1, engine="ddp", stage=0, metric=0.4, method="sft", base_revision="b",
        metrics={"eval_loss": 0.4}, data_hash="d", files={},
    )  # fmt: skip
    rows = [
        row("test", "target", "perplexity", 20.0, 2.5, 0.4),
        row("news", "retained", "perplexity", 11.0, 12.5, 0.6),
        row(text, "retained", "perplexity", 9.0, 9.05, 0.3),
        row("test", "target", "token_kl", 0.0, 1.4, 0.1),
        row("news", "retained", "token_kl", 0.0, 0.2, 0.02),
    ]
    sample = {"prompt": f"user: {text}\nline", "expected": text, "before": text, "after": ""}
    split = {"rows": 900, "groups": 300, "lengths": {"whole": {"total": 12345}}}
    card = {"splits": {"train": split, "test": split}, "unit": "tokens", "warnings": [text], "name": text}
    left = Left(
        outcome={
            "steps": 200,
            "history": log or history(),
            "checkpoint_seconds": [0.2, 0.4],
            "rows": {"train": {"rows": 900, "cut": 7, "max_length": 32, "left_out": 2, "why": text}},
        },
        evaluation={"rows": rows, "skipped": [{"set": text, "reason": "none of its rows can be measured"}]}
        if evaluation
        else None,
        samples=[sample] * 2 if samples else [],
        data=card,
        attempts=[
            {"began": "1", "step": 0, "workers": 2, "device": "cpu"},
            {"began": "2", "step": resumed_at, "workers": 2, "device": "cpu"},
        ],
    )
    return render(plan, checkpoint, left, stopped)


@pytest.mark.parametrize(("xs", "ticks"), [([10, 20], ["10", "15", "20"]), ([0, 1], ["0", "1"]), ([3], None)])
def test_steps_and_trials_are_marked_at_whole_numbers(xs: list[float], ticks: list[str] | None) -> None:
    drawn = line_chart("t", [Series("a", xs, [1.0] * len(xs))], x="step", y="loss")
    found = re.findall(r'<span class="x"[^>]*>([^<]*)<', drawn)
    assert ticks is None or found == ticks
    assert all(re.fullmatch(r"−?\d+", tick) for tick in found)


def test_the_report_tells_target_beside_retained_with_intervals() -> None:
    text = Words(page_of()).text
    for told in ("target: test", "retained: news", "−17.5", "forgotten", "better", "no clear change", "95 % interval"):
        assert told in text


def test_the_report_tells_speed_pauses_and_restarts() -> None:
    text = Words(page_of()).text
    for told in ("8,000.0", "0.30 s, of 2", "1, from step 100", "2 x cpu"):
        assert told in text


def test_the_report_tells_what_became_of_the_rows() -> None:
    assert "Rows of train: 7 rows cut at max_length=32, 2 left out (a word), of 900 rows." in Words(page_of()).text


def test_the_speed_does_not_go_over_a_restart() -> None:
    found, unit = speeds(history(), 8)
    assert unit == "tokens a second"
    assert found.ys == pytest.approx([8000.0] * 18)
    without = [{name: value for name, value in entry.items() if name != "num_tokens"} for entry in history()]
    assert speeds(without, 8)[0].ys == pytest.approx([16.0] * 18)
    # Counted anew by each attempt, as its clock is.
    own = [{**entry, "tokens": 2000.0 * entry[SECONDS]} for entry in history()]
    assert speeds(own, 8)[0].ys == pytest.approx([2000.0] * 18)


def test_the_speed_does_not_go_over_an_attempt_that_was_lost_early() -> None:
    # Lost after step 12 and resumed at 10: the second clock is ahead of the first at once, and its tokens are fewer.
    whole = [{"step": 10, "loss": 1.0, SECONDS: 2.0, "tokens": 9000.0}]
    whole += [
        {"step": step, "loss": 1.0, SECONDS: 0.5 * (step - 10), "tokens": 100.0 * (step - 10)} for step in (20, 30, 40)
    ]
    found, _ = speeds(whole, 8, {10})
    assert (found.xs, found.ys) == ([30.0, 40.0], [200.0, 200.0])
    assert "tokens a second, median200.0" in Words(page_of(log=whole, resumed_at=10)).text


def test_a_run_that_left_little_has_a_report_too() -> None:
    text = Words(page_of(evaluation=False, samples=False)).text
    assert "Nothing was measured" in text
    assert "Samples" not in text


def test_the_report_of_a_run_that_has_stopped_says_why_and_how_it_goes_on() -> None:
    text = Words(page_of(evaluation=False, samples=False, stopped="the loss is nan at step 151")).text
    assert "This run is not finished: the loss is nan at step 151. The same command goes on with it." in text
    assert "last checkpoint at step" in text


@hypothesis.settings(max_examples=30)
@given(st.text(max_size=60).filter(lambda text: text.strip()))
def test_no_text_becomes_a_tag(text: str) -> None:
    usual = [tag for tag, _ in Words(page_of("word")).tags]
    assert [tag for tag, _ in Words(page_of(text + "<b>")).tags] == usual


def test_hostile_text_is_shown_and_not_obeyed(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, tmp_path, page_of(HOSTILE))
    assert page.title() == "model"
    assert page.locator("script, img, iframe, link").count() == 0
    assert page.locator(".sample .words").nth(1).inner_text() == HOSTILE


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE, {"width": 700, "height": 600}])
def test_the_report_fits_every_width_with_enough_contrast(
    browser: Browser, tmp_path: Path, scheme: str, size: Any
) -> None:
    page = opened(browser, tmp_path, page_of("wordwithoutspaces" * 12), viewport=size, color_scheme=scheme)
    for number in range(page.locator("summary").count()):
        page.locator("summary").nth(number).click()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(LOW_CONTRASTS) == []
    page.close()


def test_what_is_folded_opens_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, tmp_path, page_of())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.parentElement.open")


def test_every_chart_is_said_in_words(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, tmp_path, page_of())
    charts = page.get_by_role("img")
    assert charts.count() >= 5
    assert all(len(chart.get_attribute("aria-label") or "") > 20 for chart in charts.all())


def test_lines_differ_by_more_than_colour() -> None:
    lines = [Series(name, [1.0, 2.0], [1.0, 2.0]) for name in "abcd"]
    found = re.findall(r'class="line s\d" stroke-dasharray="([^"]*)" d="M0', line_chart("t", lines, x="x", y="y"))
    assert len(set(found)) == 4


NUMBERS = st.floats(-1e9, 1e9) | st.sampled_from([math.nan, math.inf])


@given(st.lists(st.tuples(st.integers(0, 1000), NUMBERS), max_size=30, unique_by=lambda point: point[0]))
def test_a_line_is_drawn_of_whatever_numbers(points: list[tuple[int, float]]) -> None:
    points.sort()
    drawn = line_chart("t", [Series("s", [x for x, _ in points], [y for _, y in points])], x="x", y="y")
    assert not re.search(r"(?<![a-z])(nan|inf)(?![a-z])", drawn)
    for place in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", drawn):
        assert all(-0.1 <= float(part) <= 1000.1 for part in place)


def test_a_peak_of_a_long_line_is_drawn() -> None:
    ys = [0.0] * 100_000
    ys[54_321] = 8.0
    drawn = line_chart("t", [Series("s", list(range(100_000)), ys)], x="x", y="y")
    assert len(drawn) < 20_000
    assert re.search(r"L543\.2 0L", drawn)


@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 3), min_size=1, max_size=5))
def test_an_interval_lies_on_a_scale_that_holds_zero(values: list[tuple[float, ...]]) -> None:
    rows = [Interval(str(n), *(sorted(value)[place] for place in (1, 0, 2))) for n, value in enumerate(values)]
    drawn = interval_chart("t", rows, x="x")
    assert drawn.count('class="dot"') == len(rows)
    for place in re.findall(r'class="(?:zero|dot)" d="M(-?[\d.]+) ', drawn):
        assert -0.1 <= float(place) <= 1000.1


def test_a_trial_without_a_value_has_a_gap_in_its_line() -> None:
    axes = [Axis("rate", [1e-4, 1e-3, 1e-2], log=True), Axis("rank", [4, None, 16]), Axis("kind", ["a", "b", "a"])]
    drawn = parallel_chart("t", axes, ["one", "two", "three"], [1, 2, 0])
    lines = dict(re.findall(r'd="([^"]*)"><title>(\w+)</title>', drawn))
    by_name = {name: path for path, name in lines.items()}
    assert by_name["two"].count("M") == 2
    assert by_name["three"].startswith("M1000 ")
    # The best last, so that it lies above the others.
    assert re.findall(r"<title>(\w+)</title>", drawn)[-1] == "three"


def test_charts_of_nothing_say_so() -> None:
    assert "Nothing was recorded" in line_chart("t", [], x="x", y="y")
    assert "Nothing was measured" in interval_chart("t", [], x="x")
    assert "No trial" in parallel_chart("t", [], [], [])


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0"), (1234567.0, "1,234,567"), (2e-05, "2e−5"), (-0.25, "−0.25"), (0.123456, "0.1235")]
)
def test_numbers_are_short(value: float, shown: str) -> None:
    assert short(value) == shown


def test_a_difference_has_its_sign() -> None:
    assert (signed(0.5), signed(-0.5), signed(0.0)) == ("+0.5", "−0.5", "0")


def test_on_paper_the_report_is_dark_on_light(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, tmp_path, page_of(), color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(LOW_CONTRASTS) == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('path.s1')).stroke") == "rgb(11, 93, 107)"
