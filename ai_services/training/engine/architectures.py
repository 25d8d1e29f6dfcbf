"""The networks that a recipe can name, all from MONAI, normalised by instance: a batch may be divided (stage 11).

https://docs.monai.io/en/stable/networks.html. DynUNet's depth and kernels follow from crop and spacing as nnU-Net's do:
https://doi.org/10.1038/s41592-020-01008-z.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.networks.nets import DynUNet, ResNet, SegResNet, UNet
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ai_services.training.disc_table import CHANNELS, SCORES
from ai_services.training.engine.recipe import Recipe, RecipeError, decided
from ai_services.training.engine.self_configuration import strides_of

CLASSES = 4
WIDTHS = (64, 128, 256, 512)
"""Features of the four stages of a residual network of ten layers; fewer are enough for a few hundred discs."""
_FEATURES, _MOST_FEATURES = 16, 256


class DiscSequence(nn.Module):  # type: ignore[misc]
    """A convolutional encoder of each disc and a bidirectional GRU over the discs of one patient.

    Input (patient, disc, channel, row, column); output (patient, disc, score). Neighbouring discs inform each other, as
    they do a reader; discs of different patients do not. A shorter spine is filled up with discs of NaN, which inform
    nobody.
    """

    def __init__(self, channels: int, scores: int, features: int = 64, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.encoder = _residual(channels, features, widths)
        self.sequence = nn.GRU(features, features // 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(features, scores)

    def forward(self, crops: Tensor) -> Tensor:
        """Scores of each disc."""
        patients, discs = crops.shape[:2]
        lengths = torch.isfinite(crops[:, :, 0, 0, 0]).sum(dim=1)
        encoded = self.encoder(torch.nan_to_num(crops).flatten(0, 1)).reshape(patients, discs, -1)
        # The recurrent part has a few thousand weights: half precision would save nothing.
        with torch.autocast(crops.device.type, enabled=False):
            together = self._together(encoded.float(), lengths, discs)
            scores: Tensor = self.head(torch.relu(together))
        return scores

    def _together(self, encoded: Tensor, lengths: Tensor, discs: int) -> Tensor:
        if torch.onnx.is_in_onnx_export():  # one whole spine
            whole: Tensor = self.sequence(encoded)[0]
            return whole
        packed = pack_padded_sequence(encoded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        result: Tensor = pad_packed_sequence(self.sequence(packed)[0], batch_first=True, total_length=discs)[0]
        return result


def build(recipe: Recipe) -> nn.Module:
    """The untrained network of a recipe; its weights follow from the recipe's seed.

    Raises
    ------
    RecipeError
        There is no such architecture, or it does not know an option.
    """
    if recipe.architecture not in ARCHITECTURES:
        raise RecipeError(f"architecture is one of {', '.join(sorted(ARCHITECTURES))}")
    torch.manual_seed(recipe.seed)
    try:
        return ARCHITECTURES[recipe.architecture](recipe, recipe.options)
    except TypeError as exc:
        raise RecipeError("options: the architecture does not know one of them") from exc


def _unet(_: Recipe, options: Mapping[str, Any]) -> nn.Module:
    given: dict[str, Any] = {"channels": (16, 32, 64, 128, 128), "strides": (2, 2, 2, 2), "num_res_units": 1}
    return UNet(spatial_dims=2, in_channels=1, out_channels=CLASSES, norm="INSTANCE", **{**given, **options})


def _segresnet(_: Recipe, options: Mapping[str, Any]) -> nn.Module:
    return SegResNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=CLASSES,
        **{"init_filters": 16, "norm": ("GROUP", {"num_groups": 8}), **options},
    )


def _dynunet(recipe: Recipe, options: Mapping[str, Any]) -> nn.Module:
    strides = strides_of(decided(recipe.crop))
    filters = [min(_FEATURES * 2**stage, _MOST_FEATURES) for stage in range(len(strides) + 1)]
    given: dict[str, Any] = {"filters": filters, "norm_name": ("INSTANCE", {"affine": True}), **options}
    return DynUNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=CLASSES,
        kernel_size=[3] * (len(strides) + 1),
        strides=[1, *strides],
        upsample_kernel_size=strides,
        **given,
    )


def _resnet(_: Recipe, options: Mapping[str, Any]) -> nn.Module:
    return _residual(**{"channels": CHANNELS, "scores": SCORES, **options})


def _residual(channels: int, scores: int, widths: Sequence[int] = WIDTHS) -> nn.Module:
    network = ResNet("basic", [1, 1, 1, 1], list(widths), spatial_dims=2, n_input_channels=channels, num_classes=scores)
    _normalise_by_instance(network)
    return network


def _normalise_by_instance(network: nn.Module) -> None:
    """MONAI's residual networks take another norm for their first layer only; the blocks normalise by batch."""
    for name, child in list(network.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            setattr(network, name, nn.InstanceNorm2d(child.num_features, affine=True))
        else:
            _normalise_by_instance(child)


def _disc_sequence(_: Recipe, options: Mapping[str, Any]) -> nn.Module:
    return DiscSequence(**{"channels": CHANNELS, "scores": SCORES, **options})


ARCHITECTURES: Mapping[str, Callable[[Recipe, Mapping[str, Any]], nn.Module]] = {
    "unet": _unet,
    "segresnet": _segresnet,
    "dynunet": _dynunet,
    "resnet": _resnet,
    "disc-sequence": _disc_sequence,
}
