"""What is shown of a running stage: log lines, the live display, and what is left."""

from __future__ import annotations

import io
import json
import math
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gmm_dask.command.console import JsonLines, LiveDisplay, LogLines
from gmm_dask.command.progress import Forecast, forecast, reached
from gmm_dask.fitting import Pass
from gmm_dask.mixture import Parameters
from gmm_dask.stage.run import refresh, run, score
from gmm_dask.stage.settings import FitSettings, ScoreSettings, settings_from
from gmm_dask.stage.summary import passes_made
from gmm_dask.stage.watch import Watcher
from gmm_dask.storage.store.local_store import LocalStore
from tests.stage.conftest import IRIS, settings_of_iris

ONE = Parameters.from_covariances([1.0], [[0.0]], [[[1.0]]], "full")
WARNING = "Component 1 held no rows after pass 2; it was reseeded."


def a_pass(number: int, change: float, start: int = 1) -> Pass:
    return Pass(start, number, -2.5, change, 0.5, 1000, ONE)


def console(*, terminal: bool = False) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    shown = Console(file=stream, force_terminal=terminal, width=100, markup=False, highlight=False)
    return shown, stream


def lines_of(stream: io.StringIO) -> list[dict[str, str]]:
    lines = stream.getvalue().splitlines()
    return [dict(pair.split("=", 1) for pair in line.split(" ") if "=" in pair) for line in lines]


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


# What is left


def test_a_change_that_shrinks_tells_how_many_passes_are_left() -> None:
    settings = FitSettings(tol=0.03, max_iter=100)
    assert forecast([math.inf, 0.8, 0.4, 0.2], 1, settings) == Forecast(3, True)  # .1 .05 .025
    assert forecast([math.inf, 0.01], 1, settings) == Forecast(0, True)


@pytest.mark.parametrize("changes", [[math.inf], [math.inf, 0.1], [math.inf, 0.1, 0.2]])
def test_without_a_trend_max_iter_is_what_is_left(changes: list[float]) -> None:
    left = forecast(changes, 1, FitSettings(max_iter=10))
    assert left == Forecast(10 - len(changes), False)


def test_starts_to_come_are_as_long_as_this_one() -> None:
    settings = FitSettings(tol=0.03, max_iter=100, n_init=3)
    assert forecast([math.inf, 0.8, 0.4, 0.2], 1, settings).passes == 3 + 2 * (4 + 3)
    assert forecast([math.inf, 0.8, 0.4, 0.2], 3, settings).passes == 3


# Log lines


def test_a_pass_is_a_line_and_the_first_has_no_change() -> None:
    shown, stream = console()
    lines, settings = LogLines(shown), FitSettings(n_init=2)
    lines.passed(a_pass(1, math.inf), settings)
    lines.passed(a_pass(2, 0.25, start=2), settings)
    first, second = lines_of(stream)
    assert (first["event"], first["number"], first["change"]) == ("pass", "1", "-")
    assert (second["start"], second["change"], second["rows"]) == ("2", "2.500e-01", "1000")
    assert second["log_likelihood_per_row"] == "-2.500000"
    assert second["rows_per_second"] == "2000"


def test_with_a_prior_the_posterior_is_named() -> None:
    shown, stream = console()
    settings = FitSettings(covariance_prior=1.0)
    LogLines(shown).passed(a_pass(2, 0.25), settings)
    assert lines_of(stream)[0]["log_posterior_per_row"] == "-2.500000"
    assert reached(a_pass(2, 0.25), settings).startswith("log-posterior per row -2.5")


def test_events_and_phases_are_lines_with_their_words_quoted() -> None:
    shown, stream = console()
    lines = LogLines(shown)
    lines.phase("fit", "10 rows in 1 chunk")
    lines.warn(WARNING)
    phase, warning = stream.getvalue().splitlines()
    assert 'event=phase name=fit detail="10 rows in 1 chunk"' in phase
    assert warning.endswith(f'event=warning message="{WARNING}"')


def test_lines_of_passes_grow_fewer_unless_each_takes_long() -> None:
    shown, stream = console()
    lines = LogLines(shown, clock := Clock())
    lines.phase("fit", "10 rows in 1 chunk")
    for number in range(1, 101):
        lines.passed(a_pass(number, 0.5), FitSettings())
    told = [int(line["number"]) for line in lines_of(stream)[1:]]
    assert told == [1, 2, 3, 5, 10, 20, 30, 50, 100]
    clock.now += 10
    lines.passed(a_pass(101, 0.5), FitSettings())
    assert lines_of(stream)[-1]["number"] == "101"


def test_an_hour_of_work_is_some_hundred_lines_and_its_begin_is_not_silent() -> None:
    shown, stream = console()
    lines, told = LogLines(shown, clock := Clock()), []
    lines.phase("fit", "10 rows in 1 chunk")
    for second in range(1, 3601):
        clock.now = float(second)
        n_before = len(stream.getvalue())
        lines.progress("looking at all rows", second, 3600)
        if len(stream.getvalue()) > n_before:
            told.append(second)
    assert told[:10] == list(range(2, 21, 2))
    assert 50 < len(told) < 200
    assert (
        'event=progress what="looking at all rows" done=2 of=3600'
        in (stream.getvalue().splitlines()[1])
    )


def test_json_lines_hold_the_same_events_with_numbers_as_numbers() -> None:
    shown, stream = console()
    lines = JsonLines(shown, clock := Clock())
    lines.phase("fit", 'data "x"')
    lines.passed(a_pass(1, math.inf), FitSettings())
    clock.now = 5.0
    lines.progress("starts", 3, None, "2 live")
    lines.warn("key=AKIAIOSFODNN7EXAMPLE\n")
    lines.waiting("workers", 60.0)
    assert lines.failed("no", 1)
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    kinds = ["phase", "pass", "progress", "warning", "waiting", "failed"]
    assert [each["event"] for each in found] == kinds
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", each["time"]) for each in found)
    assert found[0]["detail"] == 'data "x"'
    assert found[1]["log_likelihood_per_row"] == -2.5
    assert found[1]["change"] is None
    assert found[1]["taken_back"] is False
    progress = {"what": "starts", "done": 3, "of": None, "note": "2 live"}
    assert found[2].items() >= progress.items()
    assert found[4]["seconds_at_most"] == 60
    assert (found[5]["message"], found[5]["exit_code"]) == ("no", 1)


def test_many_parts_are_few_lines() -> None:
    shown, stream = console()
    lines = LogLines(shown)
    for done in range(1, 1001):
        lines.labelled(done, 1000)
    assert [line["parts"] for line in lines_of(stream)] == [str(n) for n in range(100, 1001, 100)]


@pytest.mark.parametrize(("n_init", "after"), [(1, ("pass 2", "pass 142")), (2, ("the pass",) * 2)])
def test_what_is_under_way_is_known_in_words(n_init: int, after: tuple[str, str]) -> None:
    lines, chosen, found = LogLines(console()[0]), FitSettings(n_init=n_init), []
    assert Watcher().under_way == lines.under_way == "the work"
    lines.phase("fit", "10 rows in 1 chunk")
    assert lines.under_way == "the work"  # a survey, or the first pass
    for number in (1, 141):  # an earlier attempt made those between
        lines.passed(a_pass(number, 0.5), chosen)
        found.append(lines.under_way)
    assert tuple(found) == after
    lines.phase("label", "10 rows in 4 parts")
    assert lines.under_way == "the labelling"


def test_what_is_waited_for_is_a_line_with_its_limit() -> None:
    shown, stream = console()
    lines = LogLines(shown)
    lines.waiting("workers", 59.7)
    lines.waiting(None)
    (line,) = lines_of(stream)
    assert (line["event"], line["what"], line["seconds_at_most"]) == ("waiting", "workers", "60")


# The live display


def test_the_live_display_follows_the_stage_and_keeps_its_events() -> None:
    shown, stream = console(terminal=True)
    live = LiveDisplay(shown)
    with live.running():
        live.phase("fit", "10 rows in 1 chunk")
        live.progress("start on the sample", 3, 8, "2 live")
        assert "start on the sample: 3 of 8, 2 live" in rendered(live)
        live.passed(a_pass(1, math.inf), FitSettings(n_init=2))
        assert "start on the sample" not in rendered(live)
        assert "changed by" not in rendered(live)
        live.passed(a_pass(2, 0.25), FitSettings(n_init=2))
        now = rendered(live)
        live.warn(WARNING)
        live.phase("label", "10 rows in 4 parts")
        worker = threading.Thread(target=live.labelled, args=(3, 4))  # as Dask tells it
        worker.start()
        worker.join()
    assert "start 1 of 2, pass 2 of at most 100, 2,000 rows/s" in now
    assert "changed by 2.5e-01 (settles below 0.001)" in now
    assert "left" in now
    end = rendered(live)
    assert end.count("✓") == 2
    assert "3 of 4 parts" in end
    assert f"Warning: {WARNING}" in stream.getvalue()
    assert "inf" not in stream.getvalue()


def test_the_live_display_says_what_is_waited_for_instead_of_what_is_left() -> None:
    live = LiveDisplay(console(terminal=True)[0])
    live.phase("fit", "10 rows in 1 chunk")
    live.passed(a_pass(1, math.inf), FitSettings())
    assert "left" in rendered(live)
    live.waiting("workers", 600.0)
    assert re.search(r"waiting for workers, at most (10 min 0|9 min 59|9 min 60) s", rendered(live))
    assert "left" not in rendered(live)
    live.waiting(None)
    assert "waiting" not in rendered(live)
    assert "left" in rendered(live)


STORE = ("get", "put", "put_if_absent", "exists", "size", "list", "check_writable")


def test_words_stand_there_while_a_store_answers_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever request takes long, the display says beneath its phase what is being done."""
    live = LiveDisplay(console(terminal=True)[0])
    silent: list[str] = []

    def watched(name: str, request: Any) -> Any:
        def asked(self: LocalStore, *arguments: Any, **named: Any) -> Any:
            phase = live._phases[-1]
            if threading.current_thread() is threading.main_thread() and not (
                phase.under_way or phase.lines[1:]
            ):
                silent.append(f"{phase.name}: {name} {arguments[:1]}")
            return request(self, *arguments, **named)

        return asked

    for name in STORE:
        monkeypatch.setattr(LocalStore, name, watched(name, getattr(LocalStore, name)))
    out = tmp_path / "out"
    settings = settings_of_iris(out, output={"checkpoint_seconds": 0})
    run(settings, live)
    run(settings, live)
    document = {"data": {"path": str(IRIS)}, "model": str(out), "output": {"path": f"{out}2"}}
    score(settings_from(document, ScoreSettings), live)
    refresh(settings_of_iris(tmp_path / "fresh"), live)
    assert silent == []


def test_a_phase_that_fails_is_marked() -> None:
    live = LiveDisplay(console(terminal=True)[0])
    with pytest.raises(RuntimeError):
        fail(live)
    assert "✗" in rendered(live)


def fail(live: LiveDisplay) -> None:
    with live.running():
        live.phase("fit", "10 rows in 1 chunk")
        raise RuntimeError


def rendered(live: LiveDisplay) -> str:
    shown, stream = console()
    shown.print(live._render())
    return stream.getvalue()


# What was published


def test_passes_that_were_taken_back_are_no_secret() -> None:
    """They are counted on the screen, so the summary must not seem to have lost them."""
    one = {"n_taken_back": 14, "n_starts": 1}
    assert passes_made(66, one) == "66 passes, and 14 that were taken back, over the data"
    several = {"n_taken_back": 14, "n_starts": 3, "n_reads": 250}
    assert passes_made(66, several) == (
        "66 passes, and 14 that were taken back, the best of 3 starts; all rows were read 250 times"
    )
    assert passes_made(1, {}) == "1 pass over the data"
