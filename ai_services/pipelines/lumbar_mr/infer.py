"""Runs the two released networks with ONNX Runtime: segmentation per slice, grading per disc (stage 4).

Inputs and outputs are described in MODEL_CARD.md; the weights are checked against the manifest before loading.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ai_services.models.registry import Manifest, load_manifest
from ai_services.models.runtime import current_execution, device_of, open_session

STRIDE = 16
LOADED_VERSIONS = 3
COARSE_STEP_MM = 4.5
FINE_STEP_MM = 2.2
ALL_SLICES = 64
BOX_MARGIN = 32
MINIMUM_SPINE_PIXELS = 120


class Networks:
    """Both networks, loaded once per process."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        # A slice a thread uses two cores better than two threads a slice: what is not convolution runs on one.
        execution = current_execution()
        self._side_by_side = execution.threads if device_of(execution) == "cpu" else 1
        self._segmentation = _open(manifest, "segmentation", threads=1 if self._side_by_side > 1 else None)
        self._grading = _open(manifest, "grading")

    @property
    def providers(self) -> dict[str, str]:
        """Role to the execution provider that its session really got: the first of those that could be used."""
        sessions = {"segmentation": self._segmentation, "grading": self._grading}
        return {role: session.get_providers()[0] for role, session in sessions.items()}

    def segment(self, working: NDArray[np.float32], slice_mm: float) -> NDArray[np.float32]:
        """Class probabilities of each slice.

        A slice every 4.5 mm or so is segmented first; the slices between follow only between the outermost ones that
        show spine, and only around it. Where these are more than 64, a slice every 2.2 mm is segmented and the others
        are interpolated (it costs about 0.02 Dice). What is outside keeps probability 1 of background.

        Parameters
        ----------
        working : shape (slice, row, column), normalised, 0.94 mm pixels, head up, anterior left
        slice_mm : distance between slices

        Returns
        -------
        shape (slice, 4, row, column): background, vertebra, disc, canal
        """
        count = len(working)
        probability = np.zeros((count, 4, *working.shape[1:]), dtype=np.float32)
        probability[:, 0] = 1
        step = max(1, round(COARSE_STEP_MM / slice_mm))
        coarse = list(range(0, count, step))
        self._each(coarse, lambda index: _put(probability[index], self._scores(working[index])))
        spine = [index for index in coarse if (probability[index, 0] < 0.5).sum() >= MINIMUM_SPINE_PIXELS]
        if step > 1 and spine:
            first, last = max(0, spine[0] - step + 1), min(count - 1, spine[-1] + step - 1)
            box = _box_around(probability[spine, 0] < 0.5)
            thin = max(1, int(FINE_STEP_MM / slice_mm)) if last - first >= ALL_SLICES else 1
            fine = range(first, last + 1, thin)
            between = sorted(set(fine) - set(coarse))
            self._each(between, lambda index: _put(probability[index][:, *box], self._scores(working[index][box])))
            _fill_between(probability, sorted({*fine, *coarse}), first, last)
        return probability

    def segment_images(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities of single slices that need not belong together, none left out.

        Parameters
        ----------
        images : shape (image, row, column), each as a slice of `segment`

        Returns
        -------
        shape (image, 4, row, column)
        """
        probability = np.empty((len(images), 4, *images.shape[1:]), dtype=np.float32)
        self._each(range(len(images)), lambda index: _put(probability[index], self._scores(images[index])))
        return probability

    def grade(self, crops: NDArray[np.float32], scalars: NDArray[np.float32]) -> NDArray[np.float32]:
        """Raw scores of each disc, shape (disc, 7): four cumulative Pfirrmann, then bulging, herniation, narrowing.

        Parameters
        ----------
        crops : shape (disc, 3, row, column): grey, disc and canal probability
        scalars : shape (disc, feature), see `crop.disc_scalars`
        """
        (scores,) = self._grading.run(None, {"crop": crops, "scalars": scalars})
        return np.asarray(scores, dtype=np.float32)

    @property
    def grades_features(self) -> bool:
        """Whether this version grades discs from their features (0.2 and later) and not from crops alone."""
        return any(node.name == "features" for node in self._grading.get_inputs())

    def grade_features(
        self, features: NDArray[np.float32], patches: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Raw scores of each disc, shape (disc, 9): those of `grade`, then Modic and spondylolisthesis.

        Parameters
        ----------
        features : shape (disc, feature), see `features.spine_features`
        patches : shape (disc, 5, row, column), see `patch.disc_patch`; what versions from 0.3 on look at as well

        Raises
        ------
        ValueError
            Where this version looks at patches and none are given.
        """
        given = {"features": features}
        if any(node.name == "patches" for node in self._grading.get_inputs()):
            if patches is None:
                raise ValueError("this version of the grader looks at patches too")
            given["patches"] = patches
        (scores,) = self._grading.run(None, given)
        return np.asarray(scores, dtype=np.float32)

    def _scores(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        return class_probabilities(self._segmentation, image)

    def _each(self, indices: Collection[int], work: Callable[[int], None]) -> None:
        """Do the work of each index, as many side by side as this process has threads; the first fault is raised."""
        if self._side_by_side == 1 or len(indices) <= 1:
            for index in indices:
                work(index)
            return
        with ThreadPoolExecutor(self._side_by_side, "segmentation") as pool:
            for _ in pool.map(work, indices):
                pass


def class_probabilities(session: onnxruntime.InferenceSession, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Class probabilities, shape (4, row, column), of one normalised slice on the working grid."""
    rows, columns = image.shape
    padded = np.pad(image, ((0, -rows % STRIDE), (0, -columns % STRIDE)))
    (scores,) = session.run(None, {"image": padded[None, None]})
    scores = scores[0, :, :rows, :columns]
    weights = np.exp(scores - scores.max(axis=0, keepdims=True))
    return np.asarray(weights / weights.sum(axis=0, keepdims=True), dtype=np.float32)


@lru_cache(maxsize=1)
def load_networks() -> Networks:
    """The networks that the pipeline comes with.

    Raises
    ------
    ModelIntegrityError
        If a weights file is not the released one.
    """
    return Networks(load_manifest("lumbar_mr"))


def networks_of(manifest: Manifest) -> Networks:
    """The networks of one version, kept loaded with those of the few versions that were asked for last.

    Raises
    ------
    ModelIntegrityError
        If a weights file is not the one that the manifest names.
    """
    with _loading:  # a new release is warmed up while a study runs
        if manifest.digest not in _loaded:
            while len(_loaded) >= LOADED_VERSIONS:
                _loaded.pop(next(iter(_loaded)))
            _loaded[manifest.digest] = Networks(manifest)
        return _loaded[manifest.digest]


_loaded: dict[str, Networks] = {}
_loading = threading.Lock()


def _fill_between(probability: NDArray[np.float32], done: list[int], first: int, last: int) -> None:
    """Interpolate, in place, the slices between segmented neighbours, which lie at most `FINE_STEP_MM` apart."""
    for lower, upper in pairwise(done):
        if lower < first or upper > last:
            continue
        for index in range(lower + 1, upper):
            share = np.float32((index - lower) / (upper - lower))
            probability[index] = (1 - share) * probability[lower] + share * probability[upper]


def _box_around(foreground: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns that hold structures in any coarse slice, with a margin for the network's field of view."""
    parts = []
    for axis in (0, 1):
        used = np.flatnonzero(foreground.any(axis=(0, 2 - axis)))
        size = foreground.shape[axis + 1]
        parts.append(slice(max(0, int(used[0]) - BOX_MARGIN), min(size, int(used[-1]) + BOX_MARGIN + 1)))
    return parts[0], parts[1]


def _put(place: NDArray[np.float32], values: NDArray[np.float32]) -> None:
    place[...] = values


def _open(manifest: Manifest, role: str, threads: int | None = None) -> onnxruntime.InferenceSession:
    file = manifest.models[role]
    return open_session(file.path, file.identity.sha256, threads=threads)
