"""The thread of an association takes no answer away from whoever sent the request."""

from __future__ import annotations

import threading
import time

from foramen.kernel.reactor_pause import ReactorPause


def test_after_clear_the_reactor_does_nothing_until_it_is_set():
    """A `threading.Event` fails here: the reactor is past it when it is cleared, and goes on once more."""
    turns = 0
    over = threading.Event()

    def react() -> None:
        nonlocal turns
        while not over.is_set():
            pause.wait()
            time.sleep(0.005)  # Between the pause and the queue: as long as the processor has other work.
            turns += 1

    reactor = threading.Thread(target=react, daemon=True)
    pause = ReactorPause(reactor)
    reactor.start()
    seen = 0
    for _ in range(30):
        pause.clear()
        before = turns
        time.sleep(0.01)
        assert turns == before
        pause.set()
        time.sleep(0.002)
        seen = turns
    over.set()
    reactor.join(5)
    assert not reactor.is_alive()
    assert seen > 0


def test_a_reactor_that_has_ended_keeps_nobody_waiting():
    reactor = threading.Thread(target=lambda: None)
    pause = ReactorPause(reactor)
    reactor.start()
    reactor.join()
    pause.clear()
