# Foramen - Orthanc plug-in: refuses other pixels under a SOP Instance UID that is stored.
# Copyright (C) 2026 The Foramen authors
#
# This program is free software: you can redistribute it and/or modify it under the terms of the GNU General Public
# License as published by the Free Software Foundation, either version 3 of the License, or (at your option) any later
# version. This program is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY; without even the
# implied warranty of MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE. See the GNU General Public License for more
# details. You should have received a copy of the GNU General Public License along with this program. If not, see
# <https://www.gnu.org/licenses/>.
#
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage 1, receive: C-STORE at Orthanc's own port must not say success to what Orthanc does not keep.

Orthanc keeps the original (`OverwriteInstances` false) and answers success to whatever comes under its UID. Here the
pixels are compared first; other pixels are answered with C111H, of the range "cannot understand" (DICOM PS3.4 §B.2.3),
which Orthanc passes on. FORAMEN_ORTHANC_COMPARES=0 turns it off, for measuring Orthanc alone. https://orthanc.uclouvain.be/book/plugins/python.html
"""

from __future__ import annotations

import os

import orthanc

SUCCESS = 0x0000
REFUSED = 0xC111
_UID_TAG = b"\x08\x00\x18\x00"
_PIXEL_TAG = b"\xe0\x7f\x10\x00"
_HEAD_BYTES = 16 * 1024


def sop_instance_uid(file: bytes) -> str:
    """SOP Instance UID of a DICOM file, little endian; empty where it is not among the first elements.

    Implicit VR has a length of 4 bytes behind the tag, explicit VR the letters UI and a length of 2.
    """
    place = file.find(_UID_TAG, 132, _HEAD_BYTES)
    if place < 0:
        return ""
    value = file[place + 8 : place + 8 + 64]
    is_explicit = file[place + 4 : place + 6] == b"UI"
    size = int.from_bytes(file[place + 6 : place + 8] if is_explicit else file[place + 4 : place + 8], "little")
    return value[:size].rstrip(b"\0 ").decode("ascii", "replace") if size <= 64 else ""


def has_same_pixels(file: bytes, original: bytes) -> bool:
    """Whether everything from the first pixel data on is the same; of files without any, the whole of them.

    An icon that comes before the image makes it stricter, never laxer.
    """
    places = file.find(_PIXEL_TAG), original.find(_PIXEL_TAG)
    if min(places) < 0:
        return file == original
    return file[places[0] :] == original[places[1] :]


def status_of(received: object) -> int:
    """DIMSE status of an instance that Orthanc is about to store."""
    file = received.GetInstanceData()
    uid = sop_instance_uid(file)
    known = _stored_as(uid)
    if not known or has_same_pixels(file, orthanc.GetDicomForInstance(known)):
        return SUCCESS
    orthanc.LogWarning("refuse_other_pixels: another instance is stored under a SOP Instance UID that was sent")
    return REFUSED


def _stored_as(uid: str) -> str:
    try:
        return orthanc.LookupInstance(uid) if uid else ""
    except orthanc.OrthancException:  # this is how Orthanc says that there is none
        return ""


if os.environ.get("FORAMEN_ORTHANC_COMPARES") != "0":
    orthanc.RegisterIncomingCStoreInstanceFilter(status_of)
