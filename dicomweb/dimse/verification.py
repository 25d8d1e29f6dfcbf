"""C-ECHO towards a peer. DICOM PS3.4 Annex A."""

from __future__ import annotations

from pynetdicom import build_context
from pynetdicom.sop_class import Verification

from dicomweb.dimse.application_entity import ApplicationEntity
from dicomweb.dimse.outgoing import associated
from dicomweb.dimse.transfer_syntax import plain_syntaxes
from foramen.kernel.settings import Settings


def verify(settings: Settings, peer: ApplicationEntity) -> bool:
    """Whether a peer can be reached, accepts our AE title and answers."""
    context = build_context(Verification, list(plain_syntaxes()))
    with associated(settings, peer, [context]) as association:
        if association is None:
            return False
        answer = association.send_c_echo()
        return "Status" in answer and int(answer.Status) == 0
