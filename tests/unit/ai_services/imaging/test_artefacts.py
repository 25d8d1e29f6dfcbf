"""Faults that are put into images have the size that they say."""

from __future__ import annotations

import numpy as np

from ai_services.imaging import artefacts


def _stripes(width: int) -> np.ndarray:
    image = np.zeros((2, 64, 64), np.float32)
    image[:, :, (np.arange(64) // width) % 2 == 0] = 100
    return image


def test_lower_resolution_keeps_the_grid_and_the_mean_and_loses_what_is_finer():
    for width, kept in ((1, 0.2), (16, 0.7)):
        fine = _stripes(width)
        coarse = artefacts.with_lower_resolution(fine, 3)
        assert coarse.shape == fine.shape
        assert abs(float(coarse.mean() - fine.mean())) < 3
        assert (float(coarse.std()) / float(fine.std()) > kept) == (width == 16)


def test_inversion_twice_is_the_image():
    image = np.random.default_rng(0).random((2, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(artefacts.with_inversion(artefacts.with_inversion(image)), image, atol=1e-6)
    assert artefacts.with_inversion(image).argmax() == image.argmin()


def test_a_bent_grey_scale_keeps_its_ends_and_its_order():
    image = np.linspace(0, 50, 64, dtype=np.float32).reshape(1, 8, 8)
    bent = artefacts.with_gamma(image, 0.5)
    assert (bent[0, 0, 0], bent.max()) == (0, 50)
    assert (np.diff(bent.ravel()) > 0).all()
    assert bent.mean() > image.mean()


def test_metal_leaves_a_void_of_its_radius_and_a_bright_rim_in_its_slices_only():
    image = np.full((5, 60, 60), 40, np.float32)
    image[0, 0, 0] = 90
    metal = artefacts.with_metal(image, [(2.0, 30.0, 30.0)], 8.0, (4.0, 1.0, 1.0))
    void = metal[2] == 0
    assert abs(float(np.sqrt(void.sum() / np.pi)) - 8) < 0.5
    assert (metal[2] == 90).any()
    np.testing.assert_array_equal(metal[[0, 4]], image[[0, 4]])
