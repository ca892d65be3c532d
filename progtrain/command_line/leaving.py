"""How one of several processes ends: without what else an interpreter does at its end, where
gloo's threads may abort it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing import util
from typing import NoReturn

from progtrain.signals import WANTED

_GIVING_BACK = 5.0  # seconds


def leave(code: int) -> NoReturn:
    """End this process. Semaphores and pools of multiprocessing's, such as those of a compiler, go
    back first, as its tracker would warn of what is left."""
    signal.pthread_sigmask(signal.SIG_BLOCK, WANTED)
    finalize = getattr(util, "_run_finalizers", None)  # a private name; without it: the warning
    if finalize is not None:
        giving_back = threading.Thread(target=finalize, args=(0,), daemon=True)
        giving_back.start()
        giving_back.join(_GIVING_BACK)
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
