"""Several processes at one run, started by torchrun: data parallel, sharded, or by layers (stage 11).

https://docs.pytorch.org/docs/stable/elastic/run.html, /fsdp.html (FSDP2, `fully_shard`). NCCL on CUDA, gloo on CPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from ai_services.training.engine.pipeline_stages import PipelineNetwork
from ai_services.training.engine.recipe import Recipe, RecipeError

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process stands among those of the run."""

    rank: int
    processes: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes what the run writes."""
        return self.rank == 0


@contextmanager
def joined() -> Iterator[Place]:
    """Join the processes that torchrun started, or run alone."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    if processes == 1:
        yield Place(0, 1, device)
        return
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Place(dist.get_rank(), processes, device)
    finally:
        dist.destroy_process_group()


def device_name(place: Place) -> str:
    """What the process computes on, as a run's record says it."""
    return str(torch.cuda.get_device_name(place.device)) if place.device.type == "cuda" else "cpu"


def shared(network: nn.Module, recipe: Recipe, place: Place, loss_of: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
    """The network as it works with the other processes; alone, it stays as it is.

    Raises
    ------
    RecipeError
        The way is not one for this kind of network, precision or batch.
    """
    if place.processes == 1:
        return network.to(place.device)
    if recipe.parallel != "ddp" and recipe.precision == "fp16":
        raise RecipeError("precision: fp16 goes with ddp alone; bf16 needs no scaling of the loss")
    if recipe.parallel == "pipeline":
        microbatches = max(recipe.accumulate, place.processes)
        if recipe.batch % microbatches:
            raise RecipeError(f"batch has to be a multiple of the {microbatches} parts that go through the pipeline")
        return PipelineNetwork(
            network,
            rank=place.rank,
            processes=place.processes,
            device=place.device,
            microbatches=microbatches,
            loss_of=loss_of,
            precision=autocast_type(recipe),
        )
    network = network.to(place.device)
    if recipe.parallel == "ddp":
        return DistributedDataParallel(network)
    mesh = init_device_mesh(place.device.type, (place.processes,))
    for part in _blocks(network):
        fully_shard(part, mesh=mesh)
    fully_shard(network, mesh=mesh)
    return network


def autocast_type(recipe: Recipe) -> torch.dtype | None:
    """Number type of the forward pass; None for that of the weights."""
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[recipe.precision]


def _blocks(network: nn.Module) -> list[nn.Module]:
    """Parts that are sharded each by itself: every parameter belongs to one of them at most, lists are no parts."""
    found: list[nn.Module] = []
    taken: set[int] = set()
    parts = [part for child in network.children() for part in (child if isinstance(child, nn.ModuleList) else (child,))]
    for part in parts:
        own = {id(item) for item in part.parameters()}
        if own and not own & taken:
            found.append(part)
            taken |= own
    return found


def positions_of(recipe: Recipe, place: Place) -> list[int]:
    """Places of the batch that this process computes; through a pipeline, all of them go through every process.

    Raises
    ------
    RecipeError
        The batch cannot be divided without rest.
    """
    if recipe.parallel == "pipeline" and place.processes > 1:
        return list(range(recipe.batch))
    if recipe.batch % place.processes:
        raise RecipeError(f"batch has to be a multiple of the {place.processes} processes")
    return list(range(place.rank, recipe.batch, place.processes))


def without_exchange(network: nn.Module, last: bool) -> Any:
    """Accumulate without exchanging gradients, but for the last part of a batch."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) and not last else nullcontext()


def mean_over_processes(value: Tensor, place: Place) -> float:
    """The mean of a number over all processes."""
    if place.processes > 1:
        dist.all_reduce(value, op=dist.ReduceOp.SUM)
        value = value / place.processes
    return float(value)


def clip(network: nn.Module, norm: float, place: Place) -> None:
    """Clip the norm of all gradients together, wherever they are."""
    if not isinstance(network, PipelineNetwork):
        nn.utils.clip_grad_norm_(network.parameters(), norm)
        return
    own = [item for item in network.parameters() if item.grad is not None]
    squares = torch.stack([item.grad.square().sum() for item in own]).sum()
    dist.all_reduce(squares, op=dist.ReduceOp.SUM)
    nn.utils.clip_grads_with_norm_(own, norm, squares.sqrt())


def whole_state(network: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """Whole state of network and optimiser, gathered from all processes; on the first process only."""
    if isinstance(network, PipelineNetwork):
        return network.whole_state(optimiser)
    plain = _plain(network)
    return get_model_state_dict(plain, options=_WHOLE), get_optimizer_state_dict(plain, optimiser, options=_WHOLE)


def restore(network: nn.Module, optimiser: torch.optim.Optimizer, model: dict[str, Any], state: dict[str, Any]) -> None:
    """Give every process its part of a whole state, however many they were when it was saved."""
    if isinstance(network, PipelineNetwork):
        network.restore(optimiser, model, state)
        return
    # Every process has read the whole state itself: nothing has to be sent from one to the others.
    set_model_state_dict(_plain(network), model, options=_WHOLE)
    set_optimizer_state_dict(_plain(network), optimiser, state, options=_WHOLE)


def _plain(network: nn.Module) -> nn.Module:
    """The network itself, so that names in a state are the same for one process and for several."""
    return network.module if isinstance(network, DistributedDataParallel) else network
