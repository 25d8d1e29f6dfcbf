"""Every page of the image database, one line each: path, methods, permission asked for, place in the navigation.

The leak tests are made from this table: a page without a permission, or one that lets somebody else in, fails them.
"""

from __future__ import annotations

from foramen.image_database.endpoints import drift, pictures, rejection, search, study, upload
from foramen.image_database.page import MAINTAIN, MANAGE, READ, Page

_STUDY = "/studies/{study}"
_SERIES = f"{_STUDY}/series/{{series}}"

PAGES: tuple[Page, ...] = (
    Page("/", {"GET": search.search_page}, READ, menu="studies"),
    Page("/upload", {"GET": upload.upload_page, "POST": upload.upload}, MANAGE, menu="upload", files=True),
    Page("/assets/upload.js", {"GET": upload.script}, MANAGE),
    Page(_STUDY, {"GET": study.study_page}, READ),
    Page(f"{_STUDY}/thumbnail", {"GET": pictures.study_thumbnail}, READ),
    Page(_SERIES, {"GET": study.series_page}, READ),
    Page(f"{_SERIES}/thumbnail", {"GET": pictures.series_thumbnail}, READ),
    Page(f"{_STUDY}/labels", {"POST": study.add_label}, MANAGE),
    Page(f"{_STUDY}/labels/remove", {"POST": study.remove_label}, MANAGE),
    Page("/rejected", {"GET": rejection.rejected_page}, MANAGE, menu="rejected"),
    Page("/drift", {"GET": drift.drift_page}, MAINTAIN, menu="drift"),
    Page(f"{_STUDY}/reject", {"POST": rejection.reject}, MANAGE),
    Page(f"{_STUDY}/restore", {"POST": rejection.restore}, MANAGE),
    Page(f"{_STUDY}/review", {"POST": study.open_review}, READ),
)
