"""What a run shows: every fact is there, fits the width, and is said the same way."""

from __future__ import annotations

import io
import math
import re
import sys
from collections.abc import Callable

import pytest
from report_fakes import (
    CAUSE,
    COMMAND,
    HEADING,
    PLAN,
    FakeLoss,
    a_run,
    advance,
    an_event,
    seen,
    tell,
)
from rich.console import Console
from rich.text import Text

from progtrain.clock import Moment
from progtrain.report import units, words
from progtrain.report.bar import Bar, fit
from progtrain.report.lines import Lines
from progtrain.report.screen import REFRESH_SECONDS, Screen, reporter
from progtrain.run import Observation, Phase

# every fact of one growth
GROWTH = [
    "growth 1 wider at step 400 (epoch 2.0)",
    "stem 8 → 16",
    f"because {CAUSE}",
    "1,042 → 1,578 params (×1.51)",
    "3.2 MFLOP → 6.4 MFLOP per sample (×2.00)",
    "output moved by 2.5e-06, 1.2e-07 of its size (promised to stay)",
    "loss 0.4301 → 0.4302",
    "val/accuracy 0.8000 → 0.8001",
    "took 1 m 12 s",
]
HEADER = ["growth=plateau", "model=mlp", "torch 2.11, cpu", "outputs/a"]
PLANNED = ["start", "the first network", "1,042 (×1.00)", "1,578 (×1.51)", "6.4 MFLOP (×2.00)"]
CLOSING = [
    "DURATION: The planned length is over.",
    "MAX_STAGES: The maximum number of growths is reached.",
    "1,042 → 1,578 params (×1.51)",
    "val/accuracy 0.9000 at the end, 0.9500 at best",
    "5.12 GFLOP of training in 40 s, growing included; 800 steps, 4.0 epochs",
    COMMAND,
]


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def a_console(width: int) -> Console:
    file = FakeTerminal()
    return Console(file=file, width=width, force_terminal=True, markup=False, highlight=False)


def a_screen(width: int, now: Callable[[], float] = lambda: 0.0) -> tuple[Screen, FakeTerminal]:
    screen = Screen(HEADING, a_console(width), now)
    return screen, screen.console.file


def plain(text: str) -> str:
    """What a terminal shows, escapes taken away."""
    return Text.from_ansi(text).plain


def in_words(text: str) -> str:
    """Wrapping and frames undone."""
    return " ".join(text.replace("│", " ").split())


def drawn(bar: Bar, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(bar)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 140])
def test_screen_shows_every_fact_of_a_run_within_the_width(width: int) -> None:
    screen, file = a_screen(width)
    tell(screen)
    text = plain(file.getvalue())
    shown = in_words(text)
    for fact in [*HEADER, *PLANNED, *GROWTH, *CLOSING, "enters consolidate", "checkpoint written"]:
        assert in_words(fact) in shown or all(word in shown for word in fact.split()), fact
    for fact in [*GROWTH, *CLOSING]:
        assert in_words(fact) in shown, fact
    assert COMMAND in text
    assert max(len(line) for line in text.splitlines() if COMMAND not in line) <= width


@pytest.mark.parametrize("width", [30, 60, 80, 140])
def test_bar_says_where_the_run_is_and_never_overflows(width: int) -> None:
    run, bar = a_run(0), Bar()
    bar.begin(run, 3)
    advance(run, 400)
    run.events = [an_event(run, moment=Moment(200), since=Moment(200))]
    bar.metric = 0.8
    bar.update(run, 0.1234)
    lines = drawn(bar, width)
    assert max(map(len, lines)) <= width and len(lines) == (1 if width == 140 else 2)
    assert "stage 2/3" in lines[0] and "loss 0.1234" in "".join(lines)
    if width >= 60:
        shown = " ".join(lines)
        for fact in ["warmup α 0.43", "50%", "20 s", "ETA 20 s", "val/accuracy 0.8000", "step 400"]:
            assert fact in shown, fact
    if width >= 80:
        assert "epoch 2.0" in " ".join(lines) and "20 it/s" in " ".join(lines)


def test_band_has_a_look_for_each_phase_and_marks_growths() -> None:
    run, bar = a_run(0), Bar()
    bar.begin(run, 2)
    for step, phase in [(200, Phase.ISOLATE), (400, Phase.WARMUP), (600, Phase.CONSOLIDATE)]:
        advance(run, step)
        run.events = [an_event(run, moment=Moment(200), phase=phase)]
        bar.update(run)
    advance(run, 700)
    bar.update(run)
    band = bar.band(16)
    assert band.plain == "████▲░░░▒▒▒▒▓▓──"
    assert {str(span.style) for span in band.spans} >= {"green", "magenta", "yellow", "cyan"}


def test_resumed_bar_knows_the_growth_under_way() -> None:
    run, bar = a_run(400), Bar()
    run.events = [an_event(run, moment=Moment(100), since=Moment(200))]
    bar.begin(run, 2)
    assert bar.band(8).plain == "█▲▒▒────"


def test_speed_and_time_left_follow_the_last_seconds() -> None:
    run, bar = a_run(0), Bar()
    bar.begin(run, 1)
    run.clock.now = Moment(100, 1000, 0.0, 1.0)
    bar.update(run)
    assert bar.pace.steps == pytest.approx(100)
    run.clock.now = Moment(400, 4000, 0.0, 301.0)  # one step a second after a growth
    bar.update(run)
    assert bar.pace.steps == pytest.approx(1, rel=1e-3)
    assert bar.pace.left(run.clock.fraction) == "6 m 40 s"


def test_screen_reads_the_loss_only_when_it_refreshes() -> None:
    time, loss, run = [0.0], FakeLoss(), a_run(0)
    screen, _ = a_screen(80, lambda: time[0])
    screen.started(run, PLAN)
    for step in range(1, 101):
        time[0] = step * REFRESH_SECONDS / 10
        advance(run, step)
        screen.stepped(run, loss)
        # evaluations redraw too; they must not put off the reading
        screen.observed(run, seen(run, 0.1))
    screen.close()
    assert 9 <= loss.readings <= 11


def test_screen_prints_an_evaluation_when_best_or_at_each_tenth() -> None:
    run = a_run(0)
    screen, file = a_screen(80)
    screen.started(run, PLAN)
    for step in range(8, 801, 8):
        advance(run, step)
        screen.observed(run, seen(run, 1.0 / step))
    screen.stopped(run)
    assert sum(line.startswith("epoch") for line in plain(file.getvalue()).splitlines()) == 11


def test_an_evaluation_has_the_primary_metric_and_the_loss_and_others_where_there_is_room() -> None:
    run = a_run()
    metrics = {"val/accuracy": 0.5, "val/macro_f1": 0.4, "val/loss": 0.7, "train/loss": 0.6}
    observation = Observation(run.clock.now, 2.0, metrics)
    run.metric = "val/macro_f1"
    start = "epoch 2.0, step 400: val/macro_f1 0.4000 (best so far), val/loss 0.7000"
    told = words.evaluation(run, observation, True)
    assert told == f"{start}, val/accuracy 0.5000, train/loss 0.6000"
    assert words.evaluation(run, observation, True, len(told)) == told
    less = words.evaluation(run, observation, True, len(told) - 1)
    assert less == f"{start}, 2 more in metrics.jsonl"
    longer = observation.metrics | {"val/perplexity": 2.0, "val/top5_accuracy": 0.9}
    observation = Observation(run.clock.now, 2.0, longer)
    more = words.evaluation(run, observation, True, len(start) + 50)
    assert more == f"{start}, val/accuracy 0.5000, 3 more in metrics.jsonl"
    assert words.evaluation(run, observation, True, 10) == f"{start}, 4 more in metrics.jsonl"
    screen, terminal = a_screen(len(start) + 30)
    screen.started(run, [])
    screen.observed(run, observation)
    assert "4 more in metrics.jsonl" in in_words(plain(terminal.getvalue()))
    screen.close()


def test_less_is_better_where_the_mode_is_min() -> None:
    run = a_run()
    assert words.is_better(run, 0.2, 0.1) and not words.is_better(run, math.nan, None)
    run.mode = "min"
    assert words.is_better(run, 0.1, 0.2) and not words.is_better(run, 0.2, 0.1)


def test_interrupted_screen_gives_the_cursor_back_and_tells_how_to_resume() -> None:
    screen, file = a_screen(80)
    with pytest.raises(KeyboardInterrupt), screen:
        screen.started(a_run(3), PLAN)
        raise KeyboardInterrupt
    assert not screen.live.is_started
    assert file.getvalue().rindex("\x1b[?25h") > file.getvalue().rindex("\x1b[?25l")
    assert "Resumed at step 3." in file.getvalue() and COMMAND in file.getvalue()
    screen.close()
    assert file.getvalue().count("Ended early") == 1


def test_screen_respects_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    screen, file = a_screen(80)
    tell(screen)
    codes = ";".join(re.findall(r"\x1b\[([0-9;]*)m", file.getvalue())).split(";")
    assert set(codes) <= {"0", "1", "2"}  # normal, bold, dim


def test_lines_say_every_fact_with_one_line_an_event_and_no_escapes() -> None:
    stream = io.StringIO()
    tell(Lines(HEADING, stream))
    text = stream.getvalue()
    for fact in [*HEADER, *PLANNED, *GROWTH, *CLOSING, "enters consolidate", "checkpoint written"]:
        assert fact in text, fact
    assert "\x1b" not in text and "\r" not in text
    (grown,) = [line for line in text.splitlines() if line.startswith("growth 1 wider at")]
    assert all(fact in grown for fact in GROWTH)
    assert "50% stage 1/2 steady, epoch 2.0, step 400, loss 0.5000, 20 it/s, 20 s, ETA 20 s" in text
    assert "epoch 2.0, step 400: val/accuracy 0.9500 (best so far)" in text


def test_lines_report_progress_at_tenths_and_read_no_other_loss() -> None:
    stream, loss, run = io.StringIO(), FakeLoss(), a_run(0)
    lines = Lines(HEADING, stream)
    lines.started(run, [])
    for step in range(1, 801):
        advance(run, step)
        lines.stepped(run, loss)
    assert loss.readings == 10 == stream.getvalue().count("loss")


def test_growth_that_was_not_promised_or_not_measured_says_so() -> None:
    run = a_run()
    event = an_event(run, promised=False, metric_before=None, metric_after=None)
    sentence = words.growth(run, event).sentence()
    assert "(no promise)" in sentence and "val/accuracy – → –" in sentence


def test_lines_tell_how_to_resume_after_an_error() -> None:
    stream = io.StringIO()
    with pytest.raises(OSError), Lines(HEADING, stream) as lines:
        lines.started(a_run(3), [])
        raise OSError
    assert stream.getvalue().endswith(f"this continues: {COMMAND}\n")


def test_free_text_cannot_break_a_line_and_any_encoding_will_do() -> None:
    bytes_ = io.BytesIO()
    stream = io.TextIOWrapper(bytes_, encoding="ascii")
    lines = Lines(HEADING, stream)
    lines.noted(a_run(), "a\r\n\x1b[31mb 8 → 16 ×2 λ")
    assert bytes_.getvalue() == b"a   [31mb 8 -> 16 x2 ?\n"


def test_reporter_draws_on_a_terminal_and_writes_lines_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(FakeTerminal):
        encoding = "utf-8"

    arguments = (HEADING.directory, HEADING.choices, HEADING.facts, COMMAND)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert isinstance(reporter(*arguments), Screen)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(reporter(*arguments), Lines)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert isinstance(reporter(*arguments), Lines)


def test_numbers_read_well_at_every_size() -> None:
    flops = {0: "0 FLOP", 950: "950 FLOP", 999_999: "1 MFLOP", 3.2e6: "3.2 MFLOP", 1e27: "1e+03 Y"}
    for number, text in flops.items():
        assert units.flops(number).startswith(text)
    spans = {0.0: "0 s", 0.42: "0.42 s", 9.96: "10 s", 59.7: "1 m 00 s", 72: "1 m 12 s"}
    spans |= {3599.8: "1 h 00 m", 7500: "2 h 05 m", 86_399: "1 d 00 h", math.inf: "? s"}
    for number, text in spans.items():
        assert units.seconds(number) == text
    assert [units.metric(v) for v in (None, 0.0, 0.5, 1e-5)] == [
        "–",
        "0.0000",
        "0.5000",
        "1.000e-05",
    ]
    assert units.ratio(0, 5) == "×–" and units.ratio(1, 1234) == "×1,234"
    assert fit(["aaa", "bbb", "c"], 9) == "aaa · bbb" and fit(["aaa"], 2) == ""


def test_several_living_growths_and_a_long_plan_stay_short() -> None:
    run = a_run()
    run.events = [an_event(run), an_event(run, phase=Phase.ISOLATE)]
    assert words.life(run) == "isolate +1" and words.stage(run, 2) == "stage 3"
    assert len(words.planned([PLAN[0]] * 500)) == words.PLAN_ROWS + 1
