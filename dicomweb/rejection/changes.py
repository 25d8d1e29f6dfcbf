"""What a rejection and a restoration change, each in one transaction: rights, holds, rows, note, audit.

IHE RAD TF-1 §30 (IOCM); dicomweb/lifecycle asks what may be removed at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dicomweb.instance_header import InstanceHeader
from dicomweb.lifecycle.legal_holds import require_not_held
from dicomweb.rejection import rows
from dicomweb.rejection.codes import RejectionCode
from dicomweb.rejection.note import SOP_CLASS, Reference, RejectionNote, write_note
from dicomweb.rejection.own_results import referenced_by, standing_on
from dicomweb.rejection.rows import Connection, Fate, Target
from dicomweb.rejection.terms import require_terms_ended
from dicomweb.visibility import Visible
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import ConflictError, NotFoundError
from foramen.kernel.settings import Settings

NOT_FOUND = "No such study, series or instance"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A rejection that was written: how many instances, and its note; `id` None: the note was known already."""

    id: int | None
    count: int
    note_uid: str


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, and what they see for this action (placeholders from `rows.FIRST_PLACE`)."""

    context: AccessContext
    visible: Visible
    trace_id: str


def reject(
    connection: Connection, asker: Asker, target: Target, code: RejectionCode, reason: str, settings: Settings
) -> Rejected:
    """Reject all instances that a URL names, and our own results that stand on them.

    Raises
    ------
    NotFoundError
        Unknown or not permitted: the two cannot be told apart.
    ConflictError
        All of them are rejected already, the study is under a legal hold, or has to be kept (113039 alone).
    """
    if not rows.counted(connection, target, asker.visible):
        if rows.rejected(connection, target, asker.visible):
            raise ConflictError("It is rejected already; restore it first to give another reason")
        raise NotFoundError(NOT_FOUND)
    study = _locked(connection, target.study)
    if code is RejectionCode.RETENTION_EXPIRED:
        require_terms_ended(connection, target, settings)
    chosen = _with_results(connection, target.study, rows.counted(connection, target, asker.visible))
    if not chosen:  # Somebody was faster.
        raise ConflictError("It is rejected already; restore it first to give another reason")
    note = write_note(study, chosen, code, reason, datetime.now(UTC))
    made = (note.series_instance_uid, note.sop_instance_uid, note.content)
    number = rows.add(connection, target.study, code, reason, asker.context, len(chosen), made, SOP_CLASS)
    rows.move_out(connection, target.study, [one.sop_instance_uid for one in chosen], number, code)
    _follow(connection, "reject", target.study, asker)
    return Rejected(number, len(chosen), note.sop_instance_uid)


def accept_note(
    connection: Connection,
    asker: Asker,
    header: InstanceHeader,
    note: RejectionNote,
    content: bytes,
    settings: Settings,
) -> Rejected:
    """Do what a received note says; what it names and has not come yet will be rejected when it comes.

    Parameters
    ----------
    header : of the note
    content : the note as it was received

    Raises
    ------
    ConflictError
        The study is under a legal hold, or has to be kept (113039 alone).
    """
    study, series, uid = header.study_instance_uid, header.series_instance_uid, header.sop_instance_uid
    if (known := rows.note_known(connection, uid)) is not None:
        return Rejected(known, 0, uid)
    rows.ensure_study(connection, study, header.study)
    require_not_held(connection, study)
    if note.code is RejectionCode.RETENTION_EXPIRED:
        require_terms_ended(connection, Target(study), settings)
    seen = {one.sop_instance_uid: one for one in rows.counted(connection, Target(study), asker.visible)}
    places = rows.places_of(connection, [one.sop_instance_uid for one in note.references])
    there = [
        one
        for one in note.references
        if one.sop_instance_uid in seen and seen[one.sop_instance_uid].series_instance_uid == one.series_instance_uid
    ]
    absent = [one for one in note.references if one.sop_instance_uid not in places]
    chosen = _with_results(connection, study, there)
    number = rows.add(
        connection, study, note.code, note.text[:500], asker.context, len(chosen) + len(absent),
        (series, uid, content), SOP_CLASS,
    )  # fmt: skip
    rows.move_out(connection, study, [one.sop_instance_uid for one in chosen], number, note.code)
    rows.announce(connection, study, absent, number, note.code)
    _follow(connection, "reject", study, asker)
    return Rejected(number, len(chosen) + len(absent), uid)


def restore(connection: Connection, asker: Asker, target: Target) -> int:
    """Take the rejection of all instances that a URL names back; returns how many.

    Raises
    ------
    NotFoundError
        None of them is rejected, or they are unknown or not permitted.
    ConflictError
        They are deleted, or on their way out.
    """
    if not rows.rejected(connection, target, asker.visible):
        raise NotFoundError(NOT_FOUND)
    rows.study_level(connection, target.study)
    found = rows.rejected(connection, target, asker.visible)
    back = [one.reference.sop_instance_uid for one in found if one.deletion is None and not one.is_deleted]
    if not back:
        raise ConflictError("It is deleted, or being deleted, and cannot be restored")
    back += standing(connection, target.study, back)
    rows.move_back(connection, target.study, back, asker.context)
    _follow(connection, "restore", target.study, asker)
    return len(back)


def standing(connection: Connection, study: str, uids: Sequence[str]) -> list[str]:
    """Rejected results of ours that stand on rejected instances: whoever sees these need not see the results."""
    names = {
        reference.sop_instance_uid: referenced_by(text)
        for reference, text in rows.own_results(connection, study, are_rejected=True)
    }
    return sorted(standing_on(set(uids), names) - set(uids))


def results_follow(connection: Connection, study: str) -> int:
    """Reject results of ours that came after what they stand on was rejected; returns how many."""
    rejected = rows.rejected_in(connection, study)
    if not rejected:
        return 0
    rows.study_level(connection, study)
    rejected = rows.rejected_in(connection, study)
    names = {one.sop_instance_uid: referenced_by(text) for one, text in rows.own_results(connection, study)}
    late = sorted(standing_on(set(rejected), names))
    if late:
        number, code = max(rejected.values())
        rows.move_out(connection, study, late, number, code)
    return len(late)


def come_again(connection: Connection, uids: Sequence[str], who: AccessContext) -> dict[str, Fate]:
    """Say what became of instances that are sent again: what only its time hid counts again, and is left out here."""
    fates = rows.fates_of(connection, uids)
    back = {
        uid: fate.study
        for uid, fate in fates.items()
        if RejectionCode(fate.code).comes_back and not fate.is_going and not fate.is_gone
    }
    for study in sorted(set(back.values())):
        rows.study_level(connection, study)
        rows.move_back(connection, study, [uid for uid, of in back.items() if of == study], who)
    return {uid: fate for uid, fate in fates.items() if uid not in back}


def _locked(connection: Connection, study: str) -> dict[str, object]:
    level = rows.study_level(connection, study)
    if level is None:
        raise NotFoundError(NOT_FOUND)
    require_not_held(connection, study)
    return level


def _with_results(connection: Connection, study: str, chosen: Sequence[Reference]) -> list[Reference]:
    uids = {one.sop_instance_uid for one in chosen}
    results = {reference.sop_instance_uid: (reference, text) for reference, text in rows.own_results(connection, study)}
    names = {uid: referenced_by(text) for uid, (_, text) in results.items() if uid not in uids}
    return [*chosen, *(results[uid][0] for uid in sorted(standing_on(uids, names)))]


def _follow(connection: Connection, interaction: str, study: str, asker: Asker) -> None:
    rows.arrived(connection, study, asker.trace_id)
    patient = rows.patient_of(connection, study)
    rows.audit(connection, interaction, study, asker.context, asker.trace_id, patient)
