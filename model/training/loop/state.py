"""All that changes while a network is trained, and that a checkpoint therefore holds."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..config import Recipe
from ..distributed.group import Workers
from .metrics import EpochMetrics, Evaluation
from .optimization import parameter_groups
from .outcome import DivergedError, Fit

log = logging.getLogger(__name__)

# The share of the training during which the learning rate rises to its peak before it falls to nearly nothing.
WARM_UP = 0.3


class TrainingState:
    """A network, its optimiser, and how far they are.

    Parameters
    ----------
    network : nn.Module
        On the device where it is trained.
    recipe : Recipe
    steps : int
        Of the whole training.
    scale_gradients : bool
        Whether the loss is scaled so that float16's gradients do not underflow.

    Attributes
    ----------
    epoch : int
        The current one, from 1.
    step : int
        How many of its steps are made.
    seconds : float
        Spent on them.
    total_loss : Tensor
        Sum of their images' losses on this worker, in float64.
    history, best, best_epoch, best_weights
        Of the finished epochs; the weights are the initial ones before there is one.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, *, steps: int, scale_gradients: bool = False) -> None:
        self.network, self._lr = network, recipe.lr
        self.generator = torch.Generator().manual_seed(recipe.seed)
        groups = parameter_groups(network, lr=recipe.lr, weight_decay=recipe.weight_decay, lr_decay=recipe.lr_decay)
        self._optimizer = torch.optim.AdamW(groups, lr=recipe.lr, fused=True)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, max_lr=[group["lr"] for group in groups], total_steps=steps, pct_start=WARM_UP
        )
        self._scaler = torch.amp.GradScaler(enabled=scale_gradients)
        self._average: AveragedModel | None = None
        if recipe.ema:
            self._average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
        self.epoch, self.step, self.seconds = 1, 0, 0.0
        self.total_loss = torch.zeros((), dtype=torch.float64)
        self.history: list[EpochMetrics] = []
        self.best: Evaluation | None = None
        self.best_epoch = 0
        self.best_weights = copy.deepcopy(network.state_dict())
        self._epoch_began = self.generator.get_state()

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept: the trained one, or the moving average of its weights."""
        return self.network if self._average is None else self._average.module

    def begin_epoch(self) -> torch.Generator:
        """Return a generator in the state in which the current epoch began, also after a restart in its middle.

        What is drawn from it before the first step of the epoch is drawn from `generator`, too.
        """
        if self.step == 0:
            self._epoch_began = self.generator.get_state()
            return self.generator
        return torch.Generator().set_state(self._epoch_began)

    def update(self, loss: Tensor) -> None:
        """Make one step of the optimiser with the gradients of a loss."""
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._schedule.step()
        if self._average is not None:
            self._average.update_parameters(self.network)

    def finish_epoch(self, train_loss: float, images: int, evaluation: Evaluation) -> EpochMetrics:
        """Take note of the result of an epoch, whose `seconds` went to so many images, and turn to the next one.

        Raises
        ------
        DivergedError
            When a loss is infinite or not a number.
        """
        if not math.isfinite(train_loss + evaluation.loss):
            raise DivergedError(
                f"the training diverged in epoch {self.epoch}: the loss is {train_loss} (training) and "
                f"{evaluation.loss} (validation); use a learning rate below {self._lr:g}"
            )
        metrics = EpochMetrics(self.epoch, train_loss, evaluation.loss, evaluation.accuracy, images / self.seconds)
        self.history.append(metrics)
        if self.best is None or evaluation.loss < self.best.loss:
            self.best, self.best_epoch = evaluation, self.epoch
            self.best_weights = copy.deepcopy(self.evaluated.state_dict())
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.total_loss = torch.zeros((), dtype=torch.float64)
        return metrics

    def outcome(self, workers: int = 1, *, interrupted: bool = True) -> Fit:
        """Return what the training has reached so far."""
        return Fit(self.history, self.best_epoch, self.best, interrupted, workers)

    def out_of_patience(self, patience: int) -> bool:
        """Return whether the validation loss has not become lower for `patience` epochs (0: never)."""
        if not patience or len(self.history) - self.best_epoch < patience:
            return False
        log.info("no lower validation loss for %d epochs: stopping after epoch %d", patience, len(self.history))
        return True

    def capture(self, workers: Workers) -> dict[str, Any]:
        """Return everything as tensors, numbers and texts; all workers must call this."""
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
        return {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "total_loss": workers.sum([self.total_loss.item()])[0],
            "history": [dataclasses.asdict(metrics) for metrics in self.history],
            "best": None if self.best is None else dataclasses.asdict(self.best),
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
            "generator": self.generator.get_state(),
            "epoch_began": self._epoch_began,
            "random": workers.all_gather((torch.get_rng_state(), cuda)),
            "network": self.network.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, saved: dict[str, Any], workers: Workers) -> None:
        """Go back to what `capture` returned, also with another number of workers."""
        self.epoch, self.step, self.seconds = saved["epoch"], saved["step"], saved["seconds"]
        # One worker holds the sum of all; what counts is the sum.
        self.total_loss = torch.tensor(saved["total_loss"] if workers.is_main else 0.0, dtype=torch.float64)
        self.history = [EpochMetrics(**metrics) for metrics in saved["history"]]
        self.best = None if saved["best"] is None else Evaluation(**saved["best"])
        self.best_epoch, self.best_weights = saved["best_epoch"], saved["best_weights"]
        self.generator.set_state(saved["generator"])
        self._epoch_began = saved["epoch_began"]
        # A worker that is new draws the noise of the last one, for other images.
        cpu, cuda = saved["random"][min(workers.rank, len(saved["random"]) - 1)]
        torch.set_rng_state(cpu)
        if cuda is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(cuda)
        self.network.load_state_dict(saved["network"])
        if self._average is not None:
            self._average.load_state_dict(saved["average"])
        self._optimizer.load_state_dict(saved["optimizer"])
        self._schedule.load_state_dict(saved["schedule"])
        self._scaler.load_state_dict(saved["scaler"])
