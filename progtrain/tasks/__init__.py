"""What is done with a network that a run has stored, by the name of its task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from progtrain.command_line.from_checkpoint import Request


def start(request: Request) -> int:
    """Do the task; the exit code."""
    from progtrain.tasks import export, inspect, predict, test

    tasks: dict[str, Callable[[Request], int]] = {
        "test": test.run,
        "predict": predict.run,
        "inspect": inspect.run,
        "export": export.run,
    }
    return tasks[request.task](request)
