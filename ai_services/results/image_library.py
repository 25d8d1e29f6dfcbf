"""Image library of a measurement report: the key images, each with the presentation state that shows it (stage 5).

DICOM PS3.16 TID 1600, 1601, 1602; PS3.3 Table C.18.4-1: the image reference of a content item names, inside itself, the
presentation state to view it with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from highdicom.sr import CodeContentItem, ContainerContentItem, ContentSequence, ImageContentItem, UIDRefContentItem
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

SOURCE = Code("260753009", "SCT", "Source")
_CONTAINS, _CONTEXT = "CONTAINS", "HAS ACQ CONTEXT"


def image_library(states: Mapping[str, Dataset], images: Mapping[str, Dataset]) -> ContainerContentItem:
    """Build the library.

    Parameters
    ----------
    states : SOP Instance UID of an image → its presentation state, at least one
    images : SOP Instance UID → image, of one series
    """
    first = images[next(iter(states))]
    group = ContainerContentItem(codes.DCM.ImageLibraryGroup, relationship_type=_CONTAINS)
    group.ContentSequence = ContentSequence(
        [
            CodeContentItem(codes.DCM.Modality, codes.cid29.MagneticResonance, relationship_type=_CONTEXT),
            UIDRefContentItem(
                codes.DCM.FrameOfReferenceUID, str(first.FrameOfReferenceUID), relationship_type=_CONTEXT
            ),
            *(shown_image(images[uid], state) for uid, state in states.items()),
        ]
    )
    library = ContainerContentItem(codes.DCM.ImageLibrary, relationship_type=_CONTAINS)
    library.ContentSequence = ContentSequence([group])
    return library


def shown_image(image: Dataset, state: Dataset) -> ImageContentItem:
    """Build the reference of an image that names the presentation state to show it with."""
    item = ImageContentItem(SOURCE, image.SOPClassUID, image.SOPInstanceUID, relationship_type=_CONTAINS)
    item.ReferencedSOPSequence[0].ReferencedSOPSequence = [_reference(state)]
    return item


def states_by_image(states: Sequence[Dataset]) -> dict[str, Dataset]:
    """Presentation states of one image each, by the image's SOP Instance UID."""
    return {
        str(state.ReferencedSeriesSequence[0].ReferencedImageSequence[0].ReferencedSOPInstanceUID): state
        for state in states
    }


def _reference(dataset: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = dataset.SOPClassUID
    item.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    return item
