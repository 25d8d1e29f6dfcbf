"""Model parallel by layers: a U-shaped network cut into stages, one a process, fed with parts of the batch (stage 11).

https://docs.pytorch.org/docs/stable/distributed.pipelining.html, schedule 1F1B. What a stage hands on is its answer and
the maps that later stages join again. A process keeps the weights of its own stage; the others' are not in its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from monai.networks.nets import DynUNet
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from ai_services.training.engine.recipe import RecipeError

_DOWN, _PLAIN, _UP = "down", "plain", "up"
Layer = tuple[str, nn.Module]
State = dict[str, Any]


class _Part(nn.Module):  # type: ignore[misc]
    """Consecutive layers. Takes and gives the answer so far, then the maps still to be joined, the latest last."""

    def __init__(self, layers: list[Layer], precision: torch.dtype | None, device: str) -> None:
        super().__init__()
        self.kinds = [kind for kind, _ in layers]
        self.blocks = nn.ModuleList(block for _, block in layers)
        self.precision, self.device = precision, device

    def forward(self, answer: Tensor, *maps: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Compute the part."""
        # A map that only passes through must not be the very tensor that came in: its gradient is sent back.
        kept = [item.view_as(item) for item in maps]
        with torch.autocast(self.device, self.precision, enabled=self.precision is not None):
            for kind, block in zip(self.kinds, self.blocks, strict=True):
                answer = block(answer, kept.pop()) if kind == _UP else block(answer)
                if kind == _DOWN:
                    kept.append(answer)
        return (answer, *kept) if kept else answer


class PipelineNetwork(nn.Module):  # type: ignore[misc]
    """One stage of a network: that of the process which makes it.

    Parameters
    ----------
    network : whole, on the CPU; the blocks of other stages lose their weights
    rank, processes : which stage of how many
    microbatches : parts that a batch is divided in
    loss_of : scores and masks of samples → mean loss
    precision : of the forward pass; None for fp32
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        rank: int,
        processes: int,
        device: torch.device,
        microbatches: int,
        loss_of: Callable[[Tensor, Tensor], Tensor],
        precision: torch.dtype | None,
    ) -> None:
        super().__init__()
        layers = layers_of(network)
        if processes > len(layers):
            raise RecipeError(f"parallel: pipeline of this network has at most {len(layers)} processes")
        bounds = [round(stage * len(layers) / processes) for stage in range(processes + 1)]
        own = layers[bounds[rank] : bounds[rank + 1]]
        for _, block in layers:
            block.to(device if any(block is mine for _, mine in own) else "meta")
        self.network, self._rank, self._processes, self._device = network, rank, processes, device
        part = _Part(own, precision, device.type)
        stage = PipelineStage(part, rank, processes, device)
        self._schedule = Schedule1F1B(stage, microbatches, loss_fn=lambda scores, mask: loss_of(scores.float(), mask))

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Those of this stage."""
        return (item for item in self.network.parameters(recurse) if not item.is_meta)

    def step(self, images: Tensor, masks: Tensor) -> Tensor:
        """Forward and backward over a whole batch; every process returns its mean loss."""
        losses: list[Tensor] = []
        first, last = self._rank == 0, self._rank == self._processes - 1
        arguments = (images.to(self._device),) if first else ()
        if last:
            self._schedule.step(*arguments, target=masks.to(self._device), losses=losses)
        else:
            self._schedule.step(*arguments)
        mean = torch.stack(losses).mean().detach() if last else torch.zeros((), device=self._device)
        dist.broadcast(mean, self._processes - 1)
        return mean

    def whole_state(self, optimiser: torch.optim.Optimizer) -> tuple[State, State]:
        """State of all stages together, on the first process; in the form that other ways to share the work use."""
        names = self._names()
        groups = [
            {**group, "params": [names[id(item)] for item in group["params"]]} for group in optimiser.param_groups
        ]
        own = (
            {name: item.cpu() for name, item in self.network.state_dict().items() if not item.is_meta},
            {names[id(item)]: _cpu(state) for item, state in optimiser.state.items()},
            groups,
        )
        gathered: list[Any] = [None] * self._processes
        dist.gather_object(own, gathered if self._rank == 0 else None)
        if self._rank:
            return {}, {}
        model = {name: item for part in gathered for name, item in part[0].items()}
        state = {name: item for part in gathered for name, item in part[1].items()}
        merged = [
            {**group, "params": [name for part in gathered for name in part[2][number]["params"]]}
            for number, group in enumerate(groups)
        ]
        return model, {"state": state, "param_groups": merged}

    def restore(self, optimiser: torch.optim.Optimizer, model: State, state: State) -> None:
        """Take this stage's part of a whole state."""
        own = {name for name, item in self.network.state_dict().items() if not item.is_meta}
        self.network.load_state_dict({name: item for name, item in model.items() if name in own}, strict=False)
        names = self._names()
        order = [names[id(item)] for group in optimiser.param_groups for item in group["params"]]
        numbers = [
            {**saved, "params": group["params"]}
            for saved, group in zip(state["param_groups"], optimiser.state_dict()["param_groups"], strict=True)
        ]
        kept = {number: state["state"][name] for number, name in enumerate(order) if name in state["state"]}
        optimiser.load_state_dict({"state": kept, "param_groups": numbers})

    def _names(self) -> dict[int, str]:
        return {id(item): name for name, item in self.network.named_parameters() if not item.is_meta}


def layers_of(network: nn.Module) -> list[Layer]:
    """Layers of a network in the order in which they compute.

    Raises
    ------
    RecipeError
        It is not known how this network is cut.
    """
    if not isinstance(network, DynUNet) or network.deep_supervision:
        raise RecipeError("parallel: pipeline is for the architecture dynunet")
    down = [(_DOWN, block) for block in (network.input_block, *network.downsamples)]
    up = [(_UP, block) for block in network.upsamples]
    return [*down, (_PLAIN, network.bottleneck), *up, (_PLAIN, network.output_block)]


def _cpu(state: State) -> State:
    return {name: item.cpu() if isinstance(item, Tensor) else item for name, item in state.items()}
