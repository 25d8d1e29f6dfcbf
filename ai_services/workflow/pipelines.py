"""What the workflow knows of each pipeline: its modality, which series it reads, how it runs and warms up (stage 4).

A new pipeline is a new entry here, beside its line in `ai_services.models.registry.PIPELINES`; live runs, batches, dry
runs, shadows and warm-up go by it. NumPy and ONNX Runtime are imported when something is asked, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from ai_services.imaging.series_selection import SeriesSelection
    from ai_services.models.registry import Manifest
    from ai_services.prediction import Prediction

MR, CT = "lumbar_mr", "lumbar_ct"
_EMPTY_SLICE = (1, 320, 256)


@dataclass(frozen=True, slots=True)
class PipelineKind:
    """One pipeline.

    Parameters
    ----------
    modality : DICOM modality of the series that it reads
    select : series of a study (headers suffice) → the one to read
    run : series and version (None: what the pipeline comes with) → prediction
    warm_up : loads what a version needs and lets it speak once about nothing
    """

    modality: str
    select: Callable[[Sequence[Sequence[Dataset]]], SeriesSelection]
    run: Callable[[Sequence[Dataset], Manifest | None], Prediction]
    warm_up: Callable[[Manifest | None], None]


def kind_of(pipeline: str) -> PipelineKind:
    """The pipeline of a name; KeyError where there is none."""
    return _KINDS[pipeline]


def pipeline_of_modality(modality: str) -> str:
    """The pipeline that reads series of a modality; MR's for one that nobody reads: it says why."""
    return next((name for name, kind in _KINDS.items() if kind.modality == modality), MR)


def pipeline_of_study(modalities: Collection[str]) -> str:
    """The pipeline that answers for a study: CT is read where there is no MR (ADR 0057)."""
    return CT if "CT" in modalities and "MR" not in modalities else MR


def run_pipeline(series: Sequence[Dataset], manifest: Manifest | None) -> Prediction:
    """The pipeline that a version belongs to; without a version the one for MR."""
    return kind_of(manifest.name if manifest else MR).run(series, manifest)


def _select_mr(series: Sequence[Sequence[Dataset]]) -> SeriesSelection:
    from ai_services.imaging.series_selection import select_series

    return select_series(series)


def _select_ct(series: Sequence[Sequence[Dataset]]) -> SeriesSelection:
    from ai_services.imaging.ct_series_selection import select_ct_series

    return select_ct_series(series)


def _run_mr(series: Sequence[Dataset], manifest: Manifest | None) -> Prediction:
    from ai_services.pipelines.lumbar_mr.pipeline import run

    return run(series, manifest)


def _run_ct(series: Sequence[Dataset], manifest: Manifest | None) -> Prediction:
    from ai_services.pipelines.lumbar_ct.pipeline import run

    return run(series, manifest)


def _warm_up_mr(manifest: Manifest | None) -> None:
    import numpy as np

    from ai_services.pipelines.lumbar_mr.infer import load_networks, networks_of

    networks = load_networks() if manifest is None else networks_of(manifest)
    networks.segment(np.zeros(_EMPTY_SLICE, dtype=np.float32), 4.0)


def _warm_up_ct(manifest: Manifest | None) -> None:
    from ai_services.pipelines.lumbar_ct import pipeline  # the libraries that it uses are most of what is to be loaded
    from ai_services.pipelines.lumbar_ct.parameters import load_parameters

    del pipeline
    load_parameters(manifest)


_KINDS: Mapping[str, PipelineKind] = {
    MR: PipelineKind("MR", _select_mr, _run_mr, _warm_up_mr),
    CT: PipelineKind("CT", _select_ct, _run_ct, _warm_up_ct),
}
PIPELINES = tuple(_KINDS)
"""Names of the pipelines."""
