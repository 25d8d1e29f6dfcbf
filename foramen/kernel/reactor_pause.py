"""Makes sure that the thread of an association rests while another thread of ours speaks with the peer.

pynetdicom pauses that thread before it sends a request, as both read from one queue. It asks a flag which the thread
takes back only after it went on: where the processor is busy, a request that follows another at once finds the flag as
it was, the thread goes on and takes the answer off the queue, and whoever sent waits until its time is over.
https://github.com/pydicom/pynetdicom (`Association._run_reactor`, 3.0)
"""

from __future__ import annotations

import threading
from typing import Any

_LOOK_S = 0.05


class ReactorPause:
    """What `threading.Event` is to that thread, with one difference: after `clear` it does rest.

    Parameters
    ----------
    reactor : the thread that waits
    """

    def __init__(self, reactor: threading.Thread) -> None:
        self._reactor = reactor
        self._changed = threading.Condition()
        self._is_set, self._rests = True, False

    def wait(self) -> None:
        """Rest until it is set; called by the reactor."""
        with self._changed:
            self._rests = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_set)
            self._rests = False

    def set(self) -> None:
        """Let the reactor go on."""
        with self._changed:
            self._is_set = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Have the reactor rest, and return when it does or has ended."""
        with self._changed:
            self._is_set = False
            while not self._rests and self._reactor.is_alive() and self._reactor is not threading.current_thread():
                self._changed.wait(_LOOK_S)


def rests_while_we_send(association: Any) -> None:
    """Apply it to an association that we asked for; before the first request."""
    association._reactor_checkpoint = ReactorPause(association)
