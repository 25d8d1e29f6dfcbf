"""Vertebrae told apart on masks whose vertebrae are known: drawn exactly, and of patients by what must hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from ai_services.imaging.phantom import lumbar_phantom
from ai_services.pipelines.lumbar_mr.vertebrae import NAMES, tell_apart
from ai_services.prediction import LUMBAR_DISC_LEVELS, Segment
from tests.builders.mr_series import space_patient

FIRST_DISC = 3


def as_the_network_has_it(drawn: np.ndarray) -> tuple[np.ndarray, list[Segment]]:
    """Segments of a mask of classes: all vertebrae, canal, discs from the lowest up."""
    groups, count = ndimage.label(drawn == 2, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(groups.ravel())[1:]
    kept = [number for number in range(1, count + 1) if sizes[number - 1] > 0.15 * sizes.max()]
    rows = ndimage.center_of_mass(groups > 0, groups, kept)
    kept = [kept[index] for index in np.argsort([-row for _, row, _ in rows])]
    mask = np.where(drawn == 1, 1, np.where(drawn == 3, 2, 0)).astype(np.uint8)
    for place, number in enumerate(kept):
        mask[groups == number] = FIRST_DISC + place
    discs = [Segment(FIRST_DISC + n, "disc", f"disc {n}", LUMBAR_DISC_LEVELS[n]) for n in range(len(kept))]
    return mask, [Segment(1, "vertebra", "vertebrae", None), Segment(2, "canal", "canal", None), *discs]


def test_bodies_and_arches_get_the_vertebra_that_they_were_drawn_for() -> None:
    phantom = lumbar_phantom(1, slices=11, rows=280, columns=240, spacing_mm=(4.0, 1.1, 1.1))
    mask, segments = as_the_network_has_it(phantom.mask)
    told, named = tell_apart(mask, phantom.affine_lps, segments)
    numbers = {segment.name: segment.number for segment in named}
    assert [segment.number for segment in named] == list(range(1, len(named) + 1))
    np.testing.assert_array_equal(np.isin(told, [2, *range(3, 3 + 6)]), np.isin(mask, [2, *range(3, 3 + 6)]))
    np.testing.assert_array_equal(told > 0, mask > 0)
    middle = phantom.mask.shape[0] // 2
    # In the midsagittal slice bodies and spinous processes are separate pieces: each must be of one vertebra.
    pieces, count = ndimage.label(mask[middle] == 1)
    ordered = sorted(range(1, count + 1), key=lambda n: -ndimage.center_of_mass(pieces == n)[0])
    canal = np.flatnonzero((mask[middle] == 2).any(axis=0)).mean()
    bodies = [n for n in ordered if ndimage.center_of_mass(pieces == n)[1] < canal]
    spines = [n for n in ordered if ndimage.center_of_mass(pieces == n)[1] > canal]
    for kind, found in (("body", bodies), ("arch", spines)):
        for name, number in list(zip(NAMES, found, strict=False))[:5]:
            share = (told[middle][pieces == number] == numbers[f"{name} vertebral {kind}"]).mean()
            assert share > 0.95, (name, kind, share)


def test_without_a_canal_nothing_is_changed() -> None:
    mask = np.zeros((3, 20, 20), np.uint8)
    mask[1, 5:9, 5:9] = 1
    segments = [Segment(1, "vertebra", "vertebrae", None), Segment(2, "canal", "canal", None)]
    told, named = tell_apart(mask, np.eye(4), segments)
    np.testing.assert_array_equal(told, mask)
    assert named == tuple(segments)


@pytest.mark.test_data
@pytest.mark.parametrize("patient", [52, 110])
def test_in_masks_of_patients_every_body_is_one_piece_between_its_discs(test_data: Path, patient: int) -> None:
    _, drawn, affine = space_patient(test_data, patient)
    mask, segments = as_the_network_has_it(drawn)
    told, named = tell_apart(mask, affine, segments)
    discs = {item.level: item.number for item in segments if item.label == "disc"}
    bodies = {item.level: item.number for item in named if item.label == "vertebra-body"}
    for name, below, above in zip(NAMES[:5], LUMBAR_DISC_LEVELS, LUMBAR_DISC_LEVELS[1:], strict=False):
        own = told == bodies[name]
        sizes = np.bincount(ndimage.label(own, structure=np.ones((3, 3, 3)))[0].ravel())[1:]
        assert sizes.max() > 0.9 * sizes.sum(), name
        row = np.argwhere(own)[:, 1].mean()
        low, high = (np.argwhere(mask == discs[level])[:, 1].mean() for level in (below, above))
        assert high < row < low, name
