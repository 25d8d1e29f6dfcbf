"""The residual block of the grading networks (He et al., Deep Residual Learning, CVPR 2016)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class ResidualBlock(nn.Module):  # type: ignore[misc]
    """Residual block that halves the resolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.skip = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, value: Tensor) -> Tensor:
        """Half the resolution: (N, inputs, rows, columns) to (N, outputs, rows / 2, columns / 2)."""
        return functional.relu(self.second(self.first(value)) + self.skip(value))
