"""Every page of the image database, one line each: path, methods, permission asked for, place in the navigation.

The leak tests are made from this table: a page without a permission, or one that lets somebody else in, fails them.
"""

from __future__ import annotations

from foramen.image_database.endpoints import drift, pictures, rejection, search, study, upload
from foramen.image_database.page import MAINTAIN, MANAGE, READ, Page

_READ, _MANAGE, _MAINTAIN = (READ,), (MANAGE,), (MAINTAIN,)
_STUDY = "/studies/{study}"
_SERIES = f"{_STUDY}/series/{{series}}"

PAGES: tuple[Page, ...] = (
    Page("/", {"GET": search.search_page}, _READ, menu="studies"),
    Page("/upload", {"GET": upload.upload_page, "POST": upload.upload}, _MANAGE, menu="upload", files=True),
    Page("/assets/upload.js", {"GET": upload.script}, _MANAGE),
    Page(_STUDY, {"GET": study.study_page}, _READ),
    Page(f"{_STUDY}/thumbnail", {"GET": pictures.study_thumbnail}, _READ),
    Page(_SERIES, {"GET": study.series_page}, _READ),
    Page(f"{_SERIES}/thumbnail", {"GET": pictures.series_thumbnail}, _READ),
    Page(f"{_STUDY}/labels", {"POST": study.add_label}, _MANAGE),
    Page(f"{_STUDY}/labels/remove", {"POST": study.remove_label}, _MANAGE),
    Page("/rejected", {"GET": rejection.rejected_page}, _MANAGE, menu="rejected"),
    Page("/drift", {"GET": drift.drift_page}, _MAINTAIN, menu="drift"),
    Page(f"{_STUDY}/reject", {"POST": rejection.reject}, _MANAGE),
    Page(f"{_STUDY}/restore", {"POST": rejection.restore}, _MANAGE),
    Page(f"{_STUDY}/review", {"POST": study.open_review}, _READ),
)
