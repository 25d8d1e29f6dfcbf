"""Which presentation contexts a peer is offered: those of its rights, and no others (DICOM PS3.8 §9.3.3.2)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AllStoragePresentationContexts, build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from dicomweb.dimse.transfer_syntax import plain_syntaxes
from dicomweb.instance_check import SUPPORTED

_OF_RIGHT = {
    "find": (PatientRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelFind),
    "get": (PatientRootQueryRetrieveInformationModelGet, StudyRootQueryRetrieveInformationModelGet),
    "move": (PatientRootQueryRetrieveInformationModelMove, StudyRootQueryRetrieveInformationModelMove),
    "commit": (StorageCommitmentPushModel,),
    "mwl": (ModalityWorklistInformationFind,),
    "mpps": (ModalityPerformedProcedureStep,),
}
STORAGE_CLASSES = tuple(str(context.abstract_syntax) for context in AllStoragePresentationContexts)
_STORED = (
    str(ExplicitVRLittleEndian),
    *sorted(SUPPORTED - {str(ExplicitVRLittleEndian)} - {str(uid) for uid in plain_syntaxes()}),
    *(str(uid) for uid in plain_syntaxes()[1:]),
)
"""In order of preference. A peer that offers one context for each syntax, as dcmtk does, has its images taken as they
are; of several in one context uncompressed explicit VR is chosen, which either side can always produce."""


@lru_cache(maxsize=64)
def contexts_for(rights: frozenset[str]) -> tuple[PresentationContext, ...]:
    """Return what is offered for these rights; verification always."""
    classes = [Verification, *(uid for right in sorted(rights) for uid in _OF_RIGHT.get(right, ()))]
    contexts = [build_context(uid, list(plain_syntaxes())) for uid in classes]
    if rights & {"store", "get"}:
        contexts += [_storage(uid, retrieves="get" in rights) for uid in STORAGE_CLASSES]
    return tuple(contexts)


def _storage(uid: str, *, retrieves: bool) -> PresentationContext:
    context = build_context(uid, list(_STORED))
    if retrieves:
        # The peer proposes itself as SCP for C-GET (role selection, PS3.7 §D.3.3.4).
        context.scu_role = context.scp_role = True
    return context


def classes_of(contexts: Iterable[PresentationContext]) -> set[str]:
    """SOP classes of contexts."""
    return {str(context.abstract_syntax) for context in contexts}
