"""Labels T2 TSE midsagittal images with the half-trained network, cleaned by what anatomy allows (stage 11).

There are no masks of T2 TSE, so transfer is trained this way and stays unmeasured; the model card says so.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from ai_services.training.lumbar_mr.dataset import MidsagittalImage
from ai_services.training.lumbar_mr.segmentation import TrainingSlice, predict

MINIMUM_DISCS = 4
MINIMUM_DISC_PIXELS = 60


def label_images(network: nn.Module, images: list[MidsagittalImage], *, weight: float) -> list[TrainingSlice]:
    """Keep the images on which the network finds a plausible spine, with their cleaned masks."""
    labelled = []
    for item in images:
        mask = keep_one_spine(predict(network, item.image).argmax(axis=0).astype(np.uint8))
        _, discs = ndimage.label(mask == 2)
        if discs >= MINIMUM_DISCS and (mask == 3).sum() > 500:
            labelled.append(TrainingSlice(item.image, mask, weight))
    return labelled


def keep_one_spine(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Erase what is not connected, within 4 pixels, to the largest group of structures, and specks of disc."""
    near = ndimage.binary_dilation(mask > 0, iterations=4)
    groups, count = ndimage.label(near)
    if count == 0:
        return mask
    sizes = ndimage.sum_labels(mask > 0, groups, np.arange(1, count + 1))
    cleaned = np.where(groups == int(np.argmax(sizes)) + 1, mask, 0).astype(np.uint8)
    discs, number = ndimage.label(cleaned == 2)
    for disc in range(1, number + 1):
        if (discs == disc).sum() < MINIMUM_DISC_PIXELS:
            cleaned[discs == disc] = 0
    return cleaned
