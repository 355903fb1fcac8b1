"""All that changes while a network is trained, and that a checkpoint therefore holds; what has been reached."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ...core.network import NetworkError
from ..config import Recipe
from ..distributed.group import Workers
from .metrics import EpochMetrics, Evaluation
from .stopping import WARM_UP, hot_epochs

log = logging.getLogger(__name__)

# Looking at a loss on a GPU waits for all steps until then, during which no further ones are prepared.
STEPS_BETWEEN_LOOKS = 16
# Parts of torchvision's networks that are not a stage, but hold the stages.
_HOLDERS = frozenset({"features", "encoder", "layers", "blocks", "trunk_output"})
# Their matrices and kernels decay. What else has several dimensions is no matrix: position embeddings, class tokens,
# tables of relative positions, layer scale.
_DECAYED = (nn.Linear, nn.modules.conv._ConvNd, nn.MultiheadAttention)
# Members of the state that a checkpoint holds as they are.
_PLAIN = ("epoch", "step", "seconds", "best_epoch", "best_weights", "epoch_began")


class DivergedError(Exception):
    """A loss is infinite or not a number, and no epoch was finished before."""


@dataclass(frozen=True)
class Fit:
    """The epochs of a training, the best one by `--select` (0: none), its validation and its weights.

    `diverged_epoch` is the one in which a loss became infinite or not a number, which ended the training (0: none).
    """

    history: list[EpochMetrics]
    best_epoch: int
    best: Evaluation | None
    interrupted: bool
    workers: int = 1
    diverged_epoch: int = 0
    weights: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def images_per_second(self) -> float:
        """Training images per second on all workers, over all epochs: the harmonic mean of the epochs' figures."""
        return len(self.history) / sum(1 / epoch.images_per_second for epoch in self.history)


NOTHING = Fit(history=[], best_epoch=0, best=None, interrupted=True)
"""Of a training that was stopped before its first epoch."""


class TrainingState:
    """A network on its device, its optimiser, and how far they are in so many steps.

    Attributes
    ----------
    epoch, step, seconds : the current epoch, from 1; how many of its steps are made, and the time spent on them
    total_loss : sum of their images' losses on this worker, in float64
    history, best, best_epoch, best_weights : of the finished epochs; the weights are the initial ones before
    diverged_epoch : the epoch in which a loss was infinite or not a number; 0: none
    epoch_began : the generator's state when the current epoch began
    """

    def __init__(self, network: nn.Module, recipe: Recipe, *, steps: int, scale_gradients: bool = False) -> None:
        self.network, self._recipe = network, recipe
        self.generator = torch.Generator().manual_seed(recipe.seed)
        groups = parameter_groups(network, lr=recipe.lr, weight_decay=recipe.weight_decay, lr_decay=recipe.lr_decay)
        self._optimizer = torch.optim.AdamW(groups, lr=recipe.lr, fused=True)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, max_lr=[group["lr"] for group in groups], total_steps=steps, pct_start=WARM_UP
        )
        self._scaler = torch.amp.GradScaler(next(network.parameters()).device.type, enabled=scale_gradients)
        self._average: AveragedModel | None = None
        if recipe.ema:
            self._average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
        self.epoch, self.step, self.seconds = 1, 0, 0.0
        self.total_loss = torch.zeros((), dtype=torch.float64)
        self.history: list[EpochMetrics] = []
        self.best: Evaluation | None = None
        self.best_epoch = self.diverged_epoch = 0
        self.best_weights = copy.deepcopy(network.state_dict())
        self.epoch_began = self.generator.get_state()

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept: the trained one, or the moving average of its weights."""
        return self.network if self._average is None else self._average.module

    def begin_epoch(self) -> torch.Generator:
        """Return a generator in the state in which the current epoch began, also after a restart in its middle."""
        if self.step == 0:
            self.epoch_began = self.generator.get_state()
            return self.generator
        return torch.Generator().set_state(self.epoch_began)

    def add_gradients(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those of the next step."""
        self._scaler.scale(loss).backward()

    def update(self) -> None:
        """Make one step of the optimiser with the gradients that were added since the last one."""
        if self._recipe.clip_gradient:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self._recipe.clip_gradient)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self._schedule.step()
        if self._average is not None:
            self._average.update_parameters(self.network)

    @property
    def is_lost(self) -> bool:
        """Whether a loss of this epoch is infinite or not a number; on a GPU it is looked at after some steps only."""
        unseen = self.total_loss.is_cuda and self.step % STEPS_BETWEEN_LOOKS
        return not unseen and not math.isfinite(self.total_loss.item())

    def diverge(self) -> None:
        """End the training in this epoch with what the epochs before have reached; DivergedError when there is none."""
        if self.best is None:
            raise DivergedError(
                f"the training diverged in epoch {self.epoch}: a loss is infinite or not a number; "
                f"use a learning rate below {self._recipe.lr:g}"
            )
        self.diverged_epoch = self.epoch

    def finish_epoch(self, train_loss: float, images: int, evaluation: Evaluation) -> EpochMetrics | None:
        """Take note of an epoch of so many images; return None when it has diverged (`diverge`)."""
        if not math.isfinite(train_loss + evaluation.loss):
            self.diverge()
            return None
        metrics = EpochMetrics(
            self.epoch, train_loss, evaluation.loss, evaluation.accuracy, evaluation.macro_f1, images / self.seconds
        )
        self.history.append(metrics)
        select = self._recipe.select
        if self.best is None or evaluation.rank(select) < self.best.rank(select):
            self.best, self.best_epoch = evaluation, self.epoch
            self.best_weights = copy.deepcopy(self.evaluated.state_dict())
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.total_loss = torch.zeros((), dtype=torch.float64)
        return metrics

    def outcome(self, workers: int = 1, *, interrupted: bool = True) -> Fit:
        """Return what the training has reached so far."""
        return Fit(
            self.history, self.best_epoch, self.best, interrupted, workers, self.diverged_epoch, self.best_weights
        )

    def is_finished(self) -> bool:
        """Return whether no epoch is left, or none is worth it: the training has diverged, or is out of patience."""
        recipe, done = self._recipe, len(self.history)
        if done >= recipe.epochs or self.diverged_epoch:
            return True
        waited = done - max(self.best_epoch, hot_epochs(recipe.epochs))
        if not recipe.patience or waited < recipe.patience:
            return False
        log.info("no better %s for %d epochs: stopping after epoch %d", recipe.select, recipe.patience, done)
        return True

    def capture(self, workers: Workers) -> dict[str, Any]:
        """Return everything as tensors, numbers and texts; all workers must call this."""
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "total_loss": workers.sum([self.total_loss.item()])[0],
            "history": [dataclasses.asdict(metrics) for metrics in self.history],
            "best": None if self.best is None else vars(self.best) | {"cells": torch.from_numpy(self.best.cells)},
            "generator": self.generator.get_state(),
            "random": workers.all_gather((torch.get_rng_state(), cuda)),
            **{name: part.state_dict() for name, part in self._parts().items()},
        }

    def restore(self, saved: dict[str, Any], workers: Workers) -> None:
        """Go back to what `capture` returned, also with another number of workers."""
        for name in _PLAIN:
            setattr(self, name, saved[name])
        # One worker holds the sum of all; what counts is the sum.
        self.total_loss = torch.tensor(saved["total_loss"] if workers.is_main else 0.0, dtype=torch.float64)
        self.history = [EpochMetrics(**metrics) for metrics in saved["history"]]
        best = saved["best"]
        self.best = None if best is None else Evaluation(**best | {"cells": best["cells"].numpy()})
        self.generator.set_state(saved["generator"])
        # A worker that is new draws the noise of the last one, for other images.
        cpu, cuda = saved["random"][min(workers.rank, len(saved["random"]) - 1)]
        torch.set_rng_state(cpu)
        if cuda is not None and torch.cuda.is_initialized():
            torch.cuda.set_rng_state(cuda)
        for name, part in self._parts().items():
            if saved[name]:  # of the scaler of gradients there is nothing where none was needed
                part.load_state_dict(saved[name])

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {
            "network": self.network, "optimizer": self._optimizer, "schedule": self._schedule, "scaler": self._scaler,
        }  # fmt: skip
        return parts if self._average is None else parts | {"average": self._average}


def stages(network: nn.Module) -> list[list[nn.Module]]:
    """Cut a network into its stages, from the input to the classifier; return each one's modules.

    A stage is a part that the network's author named: `layer1` of a ResNet, a block of `features` of an EfficientNet,
    a layer of a transformer. Parts without weights belong to the stage before them.
    """
    found: list[list[nn.Module]] = []
    for part in _parts(network):
        if not found or any(True for _ in part.parameters()):
            found.append([part])
        else:
            found[-1].append(part)
    return found


def _parts(module: nn.Module) -> list[nn.Module]:
    parts: list[nn.Module] = []
    for name, child in module.named_children():
        parts += _parts(child) if name in _HOLDERS else [child]
    return parts


def freeze(network: nn.Module, trainable: int) -> list[nn.Module]:
    """Exclude all but the last so many stages from training; raise NetworkError when there are fewer.

    Returns the frozen modules, which must be kept in evaluation mode: batch normalisation keeps its statistics.
    """
    all_stages = stages(network)
    if trainable > len(all_stages):
        raise NetworkError(f"this network has {len(all_stages)} stages; --train-stages {trainable} asks for more")
    trained = {id(p) for stage in all_stages[-trainable:] for module in stage for p in module.parameters()}
    for parameter in network.parameters():  # also those that are in no stage, such as a transformer's class token
        parameter.requires_grad_(id(parameter) in trained)
    return [module for stage in all_stages[:-trainable] for module in stage]


def parameter_groups(network: nn.Module, *, lr: float, weight_decay: float, lr_decay: float) -> list[dict[str, Any]]:
    """Return the optimiser's groups: a learning rate for each stage, and weight decay for matrices and kernels only.

    `lr` is that of the last stage; `lr_decay` the learning rate of a stage over that of the next one (Howard and Ruder
    2018). Biases, normalisation, embeddings and layer scale do not decay, as in torchvision's references.
    """
    matrices = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, _DECAYED)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim >= 2
    }
    if lr_decay == 1:
        by_stage = [list(network.parameters())]
    else:
        by_stage = [[p for module in stage for p in module.parameters()] for stage in stages(network)]
        known = {id(parameter) for stage in by_stage for parameter in stage}
        by_stage[0] = [p for p in network.parameters() if id(p) not in known] + by_stage[0]
    groups = []
    for distance, parameters in enumerate(reversed(by_stage)):
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        decayed = [p for p in trained if id(p) in matrices]
        free = [p for p in trained if id(p) not in matrices]
        for decay, chosen in ((weight_decay, decayed), (0.0, free)):
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "lr": lr * lr_decay**distance})
    return groups
