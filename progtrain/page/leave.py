"""The page that a run leaves at its end, whatever its end was, and names as its last line."""

from __future__ import annotations

import sys
from pathlib import Path

from progtrain.report.units import encodable, one_line, written


def leave(directory: Path) -> None:
    """Write and name the run's page; no run fails for it, and one that left no files gets none."""
    from progtrain.page.run import write_run  # jinja2 takes its time

    try:
        page = write_run(directory)
    except FileNotFoundError:
        return
    except Exception as error:  # a page is worth less than a run: whatever it is, say so and go on
        told = one_line(f"{type(error).__name__}: {error}")
        print(f"warning: the run is stored, but its report.html is not: {told}", flush=True)
    else:
        for line in written([page]):
            print(encodable(one_line(line), sys.stdout.encoding or "utf-8"), flush=True)
