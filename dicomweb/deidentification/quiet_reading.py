"""pydicom's warnings quote values ("Invalid value for VR CS: …"): while originals are read, they are not said.

Rule 5 of the design: nothing of a patient in logs. What a warning is about is met by the rules themselves.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom import config

from foramen.kernel.dicom_text import mend_escape_sequences

mend_escape_sequences()


@contextmanager
def quiet_reading() -> Iterator[None]:
    """Let no value reach a log or standard error; as it was, afterwards. For a process of its own: not by thread."""
    logger = logging.getLogger("pydicom")
    before, reading = logger.disabled, config.settings.reading_validation_mode
    writing = config.settings.writing_validation_mode
    logger.disabled = True
    config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before
        config.settings.reading_validation_mode, config.settings.writing_validation_mode = reading, writing
