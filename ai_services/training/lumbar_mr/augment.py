"""Augmentation in torch: geometry, label-guided re-contrast, tone, bias field, blur, noise (stage 11).

Re-contrast per tissue lets masks of one sequence (T2 SPACE) teach others (T2 TSE, T1); no flips, anatomy has a side.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def augment_batch(
    image: Tensor, mask: Tensor, generator: torch.Generator, crop: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Augment a batch of padded slices.

    Parameters
    ----------
    image : shape (batch, 1, row, column), normalised
    mask : shape (batch, row, column), class numbers, int64
    generator : source of all randomness
    crop : rows and columns of the result

    Returns
    -------
    image (batch, 1, *crop) and mask (batch, *crop)
    """
    image, mask = _random_affine(image, mask, generator, crop)
    results = [_recolour(image[i : i + 1], mask[i], generator) for i in range(len(image))]
    return torch.cat(results), mask


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator).item())


def _random_affine(
    image: Tensor, mask: Tensor, generator: torch.Generator, crop: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    rows, columns = image.shape[-2:]
    thetas = []
    for _ in range(len(image)):
        angle = math.radians(_uniform(generator, -20, 20))
        scale = _uniform(generator, 0.8, 1.3)
        stretch = _uniform(generator, 0.93, 1.07)
        # Output crop coordinates (-1..1) to input coordinates (-1..1), in pixels in between.
        half_r, half_c = crop[0] / 2 / scale * stretch, crop[1] / 2 / scale / stretch
        slack_r, slack_c = max(0.0, rows / 2 - half_r) + 16, max(0.0, columns / 2 - half_c) + 16
        shift_r, shift_c = _uniform(generator, -slack_r, slack_r), _uniform(generator, -slack_c, slack_c)
        cos, sin = math.cos(angle), math.sin(angle)
        thetas.append(
            [
                [cos * half_c / (columns / 2), -sin * half_r / (columns / 2), shift_c / (columns / 2)],
                [sin * half_c / (rows / 2), cos * half_r / (rows / 2), shift_r / (rows / 2)],
            ]
        )
    grid = functional.affine_grid(torch.tensor(thetas), [len(image), 1, *crop], align_corners=False)
    moved = functional.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    moved_mask = functional.grid_sample(mask[:, None].float(), grid, mode="nearest", align_corners=False)
    return moved, moved_mask[:, 0].long()


def _smooth_field(generator: torch.Generator, shape: tuple[int, int], cells: int) -> Tensor:
    coarse = torch.randn((1, 1, cells, cells), generator=generator)
    return functional.interpolate(coarse, size=shape, mode="bicubic", align_corners=True)


def _recontrast(image: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Change each labelled tissue's grey level on its own, with a soft edge."""
    soft = functional.one_hot(mask, 4).permute(2, 0, 1)[None].float()
    soft = functional.avg_pool2d(soft, 3, stride=1, padding=1)
    result = image
    for number in (1, 2, 3):
        if _uniform(generator, 0, 1) < 0.5:
            gain, offset = _uniform(generator, 0.3, 1.8), _uniform(generator, -0.1, 0.5)
            if number == 3 and _uniform(generator, 0, 1) < 0.4:  # dark CSF, as in T1
                gain, offset = _uniform(generator, 0.1, 0.5), _uniform(generator, 0.0, 0.15)
            inside = soft[:, number : number + 1]
            result = result * (1 - inside) + inside * (result * gain + offset)
    return result


def _recolour(image: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    shape = (image.shape[-2], image.shape[-1])
    if _uniform(generator, 0, 1) < 0.6:
        image = _recontrast(image, mask, generator)
    if _uniform(generator, 0, 1) < 0.7:  # monotone tone curve
        image = image.clamp(0, 1.6).pow(math.exp(_uniform(generator, -0.9, 0.6)))
    if _uniform(generator, 0, 1) < 0.25:  # free tone curve through five points
        knots = (
            torch.rand(5, generator=generator).sort().values
            if _uniform(generator, 0, 1) < 0.6
            else torch.rand(5, generator=generator)
        )
        position = image.clamp(0, 0.999) * 4
        low = position.long()
        image = knots[low] + (knots[(low + 1).clamp(max=4)] - knots[low]) * (position - low)
    if _uniform(generator, 0, 1) < 0.05:
        image = image.clamp(0, 1).max() - image
    if _uniform(generator, 0, 1) < 0.5:
        image = image * (0.35 * _smooth_field(generator, shape, 4)).exp()
    if _uniform(generator, 0, 1) < 0.4:  # lower resolution, then back
        factor = _uniform(generator, 0.4, 0.9)
        small = functional.interpolate(image, scale_factor=factor, mode="bilinear", antialias=True)
        image = functional.interpolate(small, size=shape, mode="bilinear")
    if _uniform(generator, 0, 1) < 0.5:
        image = image + _uniform(generator, 0.01, 0.1) * torch.randn(image.shape, generator=generator)
    return image.clamp(-0.1, 1.5) * _uniform(generator, 0.8, 1.2) + _uniform(generator, -0.05, 0.05)
