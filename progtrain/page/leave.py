"""The page that a run leaves at its end, whatever its end was."""

from __future__ import annotations

from pathlib import Path

from progtrain.report.units import one_line


def leave(directory: Path) -> None:
    """Write the run's page; no run fails for it, and one that left no files gets none."""
    from progtrain.page.run import write_run  # jinja2 takes its time

    try:
        write_run(directory)
    except FileNotFoundError:
        return
    except Exception as error:  # a page is worth less than a run: whatever it is, say so and go on
        told = one_line(f"{type(error).__name__}: {error}")
        print(f"warning: the run is stored, but its report.html is not: {told}", flush=True)
