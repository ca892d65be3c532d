"""What a run stores: strict JSON, no row twice, a result that sums it up."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from report_fakes import CAUSE, HEADING, PLAN, a_run, an_event, seen, tell

from progtrain.clock import Moment
from progtrain.report import words
from progtrain.report.files import Files, truncate
from progtrain.report.lines import Lines
from progtrain.report.many import Many
from progtrain.run import Observation, Phase, StopReason


def rows(path: Path) -> list[dict[str, object]]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_files_keep_a_row_of_everything_in_strict_json(tmp_path: Path) -> None:
    files = Files(tmp_path, {"growth": "plateau"}, ["growth=plateau"])
    files.observed(a_run(1), Observation(Moment(1), 0.1, {"val/accuracy": math.nan}))
    tell(files)
    first, second, _ = rows(tmp_path / "metrics.jsonl")
    assert first["val/accuracy"] is None
    assert second == {
        "step": 400, "epoch": 2.0, "samples": 4000, "flops": 2.56e9, "seconds": 20.0,
        "params": 1042, "val/accuracy": 0.95,
    }  # fmt: skip
    events = rows(tmp_path / "events.jsonl")
    assert [e["kind"] for e in events] == ["started", "growth", "phase", "note", "stop"]
    assert events[0]["plan"][1]["name"] == "wider" and events[3]["text"] == "checkpoint written"
    expected = {
        "step": 400, "index": 0, "stage": "wider", "cause": CAUSE, "what": "stem 8 → 16",
        "params_before": 1042, "params_after": 1578, "flops_before": 3.2e6, "flops_after": 6.4e6,
        "preservation_error": 1.2e-7, "promised": True, "metric_before": 0.8,
        "metric_after": 0.8001, "output_change": 2.5e-6, "probe_loss_before": 0.4301,
        "probe_loss_after": 0.4302, "growth_seconds": 72.0, "phase": "warmup", "alpha": 0.43,
    }  # fmt: skip
    assert expected.items() <= events[1].items()
    assert {"phase": "consolidate", "alpha": 0.43}.items() <= events[2].items()
    files.close()


def test_rows_tell_how_a_growth_went_on(tmp_path: Path) -> None:
    run = a_run()
    later = Moment(430, 4300, 2.7e9, 21.0)
    event = an_event(run, rate=0.5, recovered=later, contribution=0.02)
    undone = replace(event, phase=Phase.ROLLED_BACK, since=later, undone="it harms", lost=3e6)
    with Files(tmp_path, {}, []) as files:
        files.grew(run, event)
        files.found(run, "finding", "shock: it has not recovered", event)
        files.found(run, "finding", "slow: growing is slow", None)
        files.advanced(run, undone)
    grown, found, slow, back = rows(tmp_path / "events.jsonl")
    assert grown["learning_rate_factor"] == 0.5
    assert (found["kind"], found["text"]) == ("finding", "shock: it has not recovered")
    assert (found["stage"], found["recovery_steps"], found["contribution"]) == ("wider", 30, 0.02)
    assert "stage" not in slow
    assert (back["undone"], back["lost_flops"], back["phase"]) == ("it harms", 3e6, "rolled back")
    assert words.outcome(event) == "1 wider recovered after 30 steps, worth +0.02"
    assert words.outcome(undone) == "1 wider undone, 3 MFLOP lost"
    assert "learning rate ×0.5 of its base" in words.growth(run, event).sentence()


def test_result_sums_the_run_up_and_goes_when_the_run_goes_on(tmp_path: Path) -> None:
    files = Files(tmp_path, {"growth": "plateau"}, ["seed=7"])
    run = tell(files)
    result = json.loads((tmp_path / "result.json").read_text())
    cost = result.pop("cost")  # what is in it: test_account
    assert cost["samples"] == 8000 and {*cost["flops"]} >= {"training", "growth", "lost"}
    assert result == {
        "status": "done", "metric_name": "val/accuracy", "mode": "max", "metric": 0.9,
        "metrics": {"val/accuracy": 0.9}, "columns": [],
        "best_checkpoints": [],
        "test": None, "best_metric": 0.95, "params_start": 1042, "params": 1578, "flops": 5.12e9,
        "seconds": 40.0, "steps": 800, "epochs": 4.0, "growths": 1, "stop": "DURATION",
        "grown_out": "MAX_STAGES", "seed": 7, "choices": {"growth": "plateau"},
        "overrides": ["seed=7"], "undone": 0, "lost_flops": 0.0,
        "measured": {},
        "growth_lives": [{"index": 0, "stage": "wider", "phase": "consolidate", "alpha": 0.43,
                          "recovery_steps": None, "contribution": None, "undone": None,
                          "lost_flops": 0.0}],
    }  # fmt: skip
    files.started(run, PLAN)
    assert not (tmp_path / "result.json").exists()
    run.stopped = StopReason.INTERRUPTED
    files.stopped(run)
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "interrupted"
    files.close()


def test_resume_repeats_no_row(tmp_path: Path) -> None:
    with Files(tmp_path, {}, []) as files:
        files.observed(a_run(1), seen(a_run(1), 0.1))
        sizes = files.sizes()
        before = (tmp_path / "metrics.jsonl").read_bytes()
        files.observed(a_run(2), seen(a_run(2), 0.2))
        files.noted(a_run(2), "lost")
    assert sizes == {"metrics.jsonl": len(before), "events.jsonl": 0}
    truncate(tmp_path, sizes)
    with Files(tmp_path, {}, []) as files:
        assert files.sizes() == sizes
        files.observed(a_run(2), seen(a_run(2), 0.3))
    assert [row["val/accuracy"] for row in rows(tmp_path / "metrics.jsonl")] == [0.1, 0.3]
    assert rows(tmp_path / "events.jsonl") == []


def test_truncate_keeps_complete_rows_of_a_file_that_lost_its_end(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"a": 1}\n{"a"')
    (tmp_path / "model.pt").write_bytes(b"weights")
    truncate(tmp_path, {"metrics.jsonl": 100, "events.jsonl": 5, "model.pt": 0})
    assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"a": 1}\n'
    assert (tmp_path / "model.pt").read_bytes() == b"weights"


def test_many_forwards_everything_and_closes_all_even_if_one_fails(tmp_path: Path) -> None:
    class Failing(Lines):
        def close(self) -> None:
            raise OSError("disk")

    stream = io.StringIO()
    files, lines = Files(tmp_path, {}, []), Lines(HEADING, stream)
    with pytest.raises(OSError, match="disk"), Many([files, lines, Failing(HEADING, stream)]) as m:
        tell(m)
    assert stream.getvalue().count("growth 1 wider at") == 2
    assert len(rows(tmp_path / "events.jsonl")) == 5
    with pytest.raises(ValueError, match="closed"):
        files.noted(a_run(), "late")
