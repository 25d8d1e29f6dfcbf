"""From a volume to outlined structures, and whether these may be used: everything before a disc is graded (stage 4)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai_services.imaging.pixels import require_pictures
from ai_services.imaging.refusal import refusal
from ai_services.imaging.volume import Volume
from ai_services.models.registry import Manifest
from ai_services.models.runtime import ModelIntegrityError
from ai_services.pipelines.lumbar_mr.infer import Networks, load_networks, networks_of
from ai_services.pipelines.lumbar_mr.postprocess import Spine, find_spine
from ai_services.pipelines.lumbar_mr.preprocess import Prepared, prepare
from ai_services.pipelines.lumbar_mr.suitability import (
    middle_slice,
    require_lumbar,
    require_no_metal,
    require_t2,
    require_upright_grey,
)
from ai_services.pipelines.lumbar_mr.turned import lies_turned, require_as_header_says
from ai_services.pipelines.lumbar_mr.uncertainty import Uncertainty, require_certain, uncertainty_of
from ai_services.prediction import PipelineError


@dataclass(frozen=True, slots=True)
class Outlined:
    """One volume with its structures.

    Parameters
    ----------
    prepared : the volume, oriented and on the working grid
    probability : shape (slice, 4, row, column) on the working grid
    spine : structures on the working grid
    uncertainty : of each structure
    """

    prepared: Prepared
    probability: NDArray[np.float32]
    spine: Spine
    uncertainty: Uncertainty


def prepared_of(volume: Volume) -> Prepared:
    """Orient, resample and normalise; refuses blank, non-sagittal and inverted images."""
    require_pictures(volume.array)
    prepared = prepare(volume)
    require_upright_grey(prepared.working)
    return prepared


def outline(prepared: Prepared, networks: Networks) -> Outlined:
    """Segment and find the structures, whatever they look like.

    Raises
    ------
    PipelineError
        ``model-output-invalid``
    """
    with runtime_faults():
        probability = networks.segment(prepared.working, prepared.spacing_mm[0])
    if not np.isfinite(probability).all():
        raise refusal("model-output-invalid")
    spine = find_spine(probability, prepared.spacing_mm[0])
    return Outlined(prepared, probability, spine, uncertainty_of(spine, probability))


def require_usable(outlined: Outlined, networks: Networks) -> None:
    """Refuse outlines that are not those of a whole, upright lumbar spine without metal, or are too uncertain.

    Raises
    ------
    PipelineError
        See `suitability`, `turned` and `uncertainty`.
    """
    working, spine = outlined.prepared.working, outlined.spine
    middle = middle_slice(spine) if (spine.classes > 0).any() else len(working) // 2

    def segment(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with runtime_faults():
            return networks.segment_images(images)

    try:
        require_lumbar(spine)
    except PipelineError as reason:
        # Nothing is read off the spine any more: there is time to say whether it only lies the wrong way.
        if lies_turned(working[middle], outlined.probability[middle], segment):
            raise refusal("orientation-contradicts-image") from reason
        raise
    require_t2(spine, working)
    require_no_metal(spine, working)
    require_certain(outlined.uncertainty)
    require_as_header_says(working[middle], outlined.probability[middle], segment)


def networks_for(manifest: Manifest | None) -> Networks:
    """The networks of a version; None for those that the pipeline comes with.

    Raises
    ------
    PipelineError
        ``model-integrity``: weights that are missing, not the released ones, or do not open.
    """
    try:
        with runtime_faults():
            return load_networks() if manifest is None else networks_of(manifest)
    except (ModelIntegrityError, PipelineError) as exc:
        # Checked weights that do not open were damaged before they were signed.
        raise refusal("model-integrity") from exc


@contextmanager
def runtime_faults() -> Iterator[None]:
    """ONNX Runtime's faults, which share no base class of their own, as `MemoryError` or ``model-output-invalid``."""
    try:
        yield
    except Exception as exc:
        if not type(exc).__module__.startswith("onnxruntime"):
            raise
        if any(word in str(exc) for word in ("allocate memory", "bad_alloc", "out of memory")):
            raise MemoryError from exc
        raise refusal("model-output-invalid") from exc
