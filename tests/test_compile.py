"""torch.compile and growth: a compiled network grows as an eager one does."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_kit import parts, train


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # inductor's own
def test_a_compiled_run_grows_by_the_same_stages_as_an_eager_one(tmp_path: Path) -> None:
    common = ["growth=budget", "warmup=cosine_ramp", "model=cnn", "model.width=4", "model.depth=2"]
    eager = train(parts(*common), tmp_path / "eager")
    compiled = train(parts(*common, "hardware.compile=true"), tmp_path / "compiled")
    assert len(eager.run.events) == 2
    assert [e.edit for e in compiled.run.events] == [e.edit for e in eager.run.events]
    assert all(e.preservation_error < 1e-5 for e in compiled.run.events)
    pairs = zip(eager.run.history, compiled.run.history, strict=True)
    assert all(abs(a.metrics["val/loss"] - b.metrics["val/loss"]) < 0.05 for a, b in pairs)
