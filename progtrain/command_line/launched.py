"""A command that somebody has started several times, as torchrun and `srun` do: one run.

Rank 0 does what the command says as if it were alone. Where that is a run of several processes it
hands the composed job over to the others, who wait for it; else, and at the end, it tells them its
exit code. So there is one directory, one screen and one message, and only one process composes.

The job travels as a pickle, through the store at which torch's own processes exchange pickles:
whoever can write there is trusted already, as with every run of torch.distributed.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from progtrain.errors import ConfigError, EnvironmentProblem, ProgtrainError
from progtrain.hardware import interface
from progtrain.hardware.place import OWN, Place, among_several, refuse_halves, translate_slurm
from progtrain.signals import Ended, ending

if TYPE_CHECKING:
    from progtrain.command_line.ranks import Outcome, Work

_WORK, _END, _GONE = "work", "end", "gone"
_MEETING = 600.0  # seconds that one waits for the first of the others
_GRACE = 10.0  # seconds that one who has failed waits for rank 0's word
_AN_ERROR = EnvironmentProblem.exit_code

_led: list[Any] = []  # of rank 0 among several: the store, and its own place in the environment


def place() -> Place | None:
    """This process's place among those that somebody has started; None where it is alone."""
    translate_slurm()
    if os.environ.get("RANK") and os.environ.get("WORLD_SIZE"):
        refuse_halves()
    found = among_several()
    if found is not None:  # else torch prints its own frames where another process has gone
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        interface.choose(found)
    return found


def several() -> bool:
    """Whether this process is one of several that somebody has started."""
    try:
        return among_several() is not None
    except ProgtrainError:  # it has been told
        return False


def lead(own: Place, command: Callable[[], int]) -> int:
    """Do the command as if alone; its exit code, which all others hear."""
    from progtrain.hardware.meeting import LOST, meet, wait_for
    from progtrain.hardware.rounds import convene

    store: Any = convene(meet(own.rank, _MEETING), own.world)
    _led[:] = [store, {name: os.environ.pop(name) for name in OWN}]
    code = _AN_ERROR
    try:
        code = command()
    finally:
        others = [f"{_GONE}/{rank}" for rank in range(1, own.world)]
        with suppress(KeyboardInterrupt, RuntimeError):  # the store may be gone
            store.set(_END, str(code))
            # it may be we who hold the store
            wait_for(lambda: store.check(others) or store.check([LOST]), _GRACE)
        show()
        _led.clear()
    return code


def leads() -> bool:
    """Whether this is rank 0 of several."""
    return bool(_led)


def refuse_many() -> None:
    """Raise `ConfigError` where several were started for what is more than one run."""
    if _led:
        world = _led[1]["WORLD_SIZE"]
        raise ConfigError(
            f"WORLD_SIZE={world}: torchrun or srun has started {world} processes of one run, and"
            " this is a multirun. Start it once: every job starts its own processes"
            " (hardware=ddp hardware.devices=<number>), and hydra/launcher=joblib or"
            " submitit_slurm spread the jobs."
        )


def show() -> None:
    """From here on the run is one of several processes."""
    if _led:
        os.environ.update(_led[1])


def hand_over(work: Work) -> None:
    """Let the others take part in a job."""
    _led[0].set(_WORK, pickle.dumps(work))


def follow(own: Place) -> int:
    """Take part in what rank 0 hands over; its exit code."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        with ending():
            return _followed(own)
    except KeyboardInterrupt as ended:
        return 128 + (ended.number if isinstance(ended, Ended) else 2)
    except ProgtrainError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code


def _followed(own: Place) -> int:
    from progtrain.command_line.ranks import attempt
    from progtrain.hardware.meeting import meet, wait_for
    from progtrain.hardware.rounds import come

    try:
        store: Any = come(meet(own.rank, _MEETING), own.rank)
        wait_for(lambda: store.check([_WORK]) or store.check([_END]), float("inf"))
        if store.check([_END]):
            return _gone(store, own, int(store.get(_END)))
        work: Work = pickle.loads(store.get(_WORK))
        outcome = attempt(lambda: work.train(None), own.rank)
        told = wait_for(lambda: store.check([_END]), _GRACE if outcome.kind else _MEETING)
        code = int(store.get(_END)) if told else _telling(outcome, own)
        return _gone(store, own, code)
    except RuntimeError:  # the store went with rank 0
        return _AN_ERROR


def _telling(outcome: Outcome, own: Place) -> int:
    """This process alone has failed, and the others wait for it: say why."""
    if outcome.kind is None:
        return _AN_ERROR
    error = outcome.error()
    if not outcome.known:
        traceback.print_exception(error)
    print(f"error: rank {own.rank} of {own.world}: {error}", file=sys.stderr, flush=True)
    return getattr(error, "exit_code", 1)


def _gone(store: Any, own: Place, code: int) -> int:
    store.set(f"{_GONE}/{own.rank}", "")
    return code
