"""Can the archive hold an instance that the index does not know? Answered without asking for each one.

A SOP Instance UID that comes again under another study is stored beside the first by Orthanc, which tells instances
apart by four identifiers; so the UID is looked for before. In Orthanc 1.10 that question is dear beside the store
(presumably by its temporary table, after which prepared statements are prepared anew). Whatever enters the archive
stands in its change log, which is cheap to follow: once archive and index were seen to hold the same number of
instances, only what came since through another door, or through ours and not long ago, needs the question.
https://orthanc.uclouvain.be/book/users/rest.html (changes)
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from dicomweb.archive_writer import ArchiveWriter

_FRESH_S = 0.25
"""How old the look at the change log may be: an instance that came by another door since is not seen."""
_QUIET_S, _AGAIN_S = 1.0, 5.0
_MANY = 16
"""More than these are not looked at one by one before it was seen whether the index has them all."""
_MOST_OWN = 4096
"""Instances of our own that are remembered; the index follows within a few hundred."""
_MOST_STRANGE = 50_000


class Newcomers:
    """Follows the change log of the archive.

    Parameters
    ----------
    count_known : how many instances the index knows
    """

    def __init__(self, archive: ArchiveWriter, count_known: Callable[[], int]) -> None:
        self._archive, self._count_known = archive, count_known
        self._lock = threading.Lock()
        self._since: int | None = None  # None: it is not known what the archive holds
        self._looked_at = self._compared_at = self._asked_at = 0.0
        self._own_ids: OrderedDict[str, None] = OrderedDict()
        self._own_uids: OrderedDict[str, None] = OrderedDict()
        self._strange: set[str] = set()

    def stored(self, orthanc_id: str, sop_instance_uid: str) -> None:
        """Note what was stored by us."""
        with self._lock:
            for kept, value in ((self._own_ids, orthanc_id), (self._own_uids, sop_instance_uid)):
                kept[value] = None
                if len(kept) > _MOST_OWN:
                    kept.popitem(last=False)

    def may_hold(self, sop_instance_uid: str) -> bool:
        """Whether the archive has to be asked for an instance that the index does not know.

        Raises
        ------
        ArchiveAnswerError, UpstreamError
            The archive, or the database, does not answer.
        """
        with self._lock:
            now = time.monotonic()
            was_quiet, self._asked_at = now - self._asked_at > _QUIET_S, now
            if self._since is None:
                # While we store they never are the same: the index follows a moment later.
                if was_quiet or now - self._compared_at > _AGAIN_S:
                    self._compare(now)
                return True
            if now - self._looked_at > _FRESH_S:
                self._look(self._since, now)
            return self._since is None or sop_instance_uid in self._strange or sop_instance_uid in self._own_uids

    def _compare(self, now: float) -> bool:
        """Begin to follow, where archive and index hold the same number of instances; returns whether they do."""
        self._compared_at = now
        last = self._archive.last_change()  # first: what comes while we count is read from there
        if self._archive.count() != self._count_known():
            return False
        self._since, self._looked_at = last, now
        self._strange.clear()
        return True

    def _look(self, since: int, now: float) -> None:
        strange: list[str] = []
        done = False
        while not done:
            found, last, done = self._archive.new_instances(since)
            if last <= since and self._archive.last_change() < since:  # another archive: nothing is known any more
                self._since = None
                return
            strange += [orthanc_id for orthanc_id in found if orthanc_id not in self._own_ids]
            since = last
        if len(strange) > _MANY and self._compare(now):
            return
        self._strange.update(self._archive.sop_instance_uid(orthanc_id) for orthanc_id in strange)
        self._since, self._looked_at = since if len(self._strange) <= _MOST_STRANGE else None, now
