"""`python -m ai_services.training.tracking RUN --uri URI --artifacts DIR`: follow a run until who started us ends.

`foramen train` starts it; by hand it tells a store what it missed: ``--once``. A store that does not answer is tried
again with growing pauses; the training does not know of us. One process at a time follows a run (flock).
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TextIO

from ai_services.training.tracking.mlflow_store import tell

log = logging.getLogger("ai_services.training.tracking")
_LOCK_FILE = "tracking.lock"
_LOOK_S = 0.5
_EVERY_S = 5.0
_LONGEST_PAUSE_S = 60.0


def main(arguments: list[str] | None = None) -> int:
    """Follow a run; 1 when the last attempt to tell the store failed."""
    parser = argparse.ArgumentParser(prog="python -m ai_services.training.tracking", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--uri", required=True)
    parser.add_argument("--artifacts", type=Path, required=True)
    parser.add_argument("--once", choices=("finished", "stopped"), help="tell it all and leave")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    if options.once:
        return 0 if _told(options, options.once) else 1
    # SIGTERM: the run is finished; SIGINT: it stopped. What has not been told yet is told before we leave.
    ended: list[str] = []
    asked = threading.Event()

    def end(number: int, _: FrameType | None) -> None:
        ended.append("finished" if number == signal.SIGTERM else "stopped")
        asked.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    parent, pause, waited = os.getppid(), _EVERY_S, 0.0
    with (options.run / _LOCK_FILE).open("w") as lock:
        while not asked.wait(_LOOK_S):
            if os.getppid() != parent:
                ended.append("stopped")  # killed with no time to say so; who goes on with the run waits for our lock
                break
            waited += _LOOK_S
            if waited >= pause and (options.run / "run.json").exists() and _locked(lock):
                pause = _EVERY_S if _told(options, "running") else min(2 * pause, _LONGEST_PAUSE_S)
                waited = 0.0
        fcntl.flock(lock, fcntl.LOCK_EX)
        return 0 if _told(options, ended[-1]) else 1


def _locked(lock: TextIO) -> bool:
    """Whether it is us who follow the run; asked again, it stays so."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _told(options: argparse.Namespace, state: str) -> bool:
    try:
        tell(options.run, options.uri, options.artifacts, state)
    except Exception as exc:  # noqa: BLE001  whatever a store does, the training has its files
        # The class only: a message may hold the store's address and password.
        log.warning("the tracking store did not take it: %s", type(exc).__name__)
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
