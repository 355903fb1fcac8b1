"""Layers that see or draw for the whole batch, though every worker has only its share of it.

Most layers treat each picture alone. Batch normalisation and the random layers do not: normalised by its own share,
or with draws of its own, N workers would train another model than one worker does. In here both are made to depend on
the whole batch, so that the number of workers changes the result by rounding only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

# Layers that multiply their input by noise. StochasticDepth is torchvision's and known by its name, so that a network
# of ours does not need torchvision.
_NOISE_LAYERS = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "StochasticDepth")


@dataclass
class Part:
    """Which part of the current batch this worker has; the training loop keeps it up to date.

    Attributes
    ----------
    own : slice
    total : int
        Pictures of the whole batch.
    """

    own: slice
    total: int


@contextlib.contextmanager
def whole_batch_layers(network: nn.Module, part: Part, *, normalise: bool) -> Iterator[None]:
    """Exchange a network's layers for ones that work on the whole batch, for the duration of the block.

    Parameters
    ----------
    network : nn.Module
        On the device where it is trained. The exchanged layers share its parameters and buffers.
    part : Part
    normalise : bool
        Whether batch normalisation, too, looks at the whole batch; otherwise each worker normalises by its own share.
    """
    exchanged = []
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            layer: nn.Module
            if normalise and isinstance(child, _BatchNorm):
                layer = _WholeBatchNorm(child)
            elif type(child).__name__ in _NOISE_LAYERS:
                layer = _WholeBatchNoise(child, part)
            else:
                continue
            # What they exchange, and a part that changes with every batch, are not for torch.compile.
            layer.forward = torch.compiler.disable(layer.forward)  # type: ignore[method-assign]
            setattr(parent, name, layer)
            exchanged.append((parent, name, child))
    try:
        yield
    finally:
        for parent, name, child in exchanged:
            child.train(parent.training)
            setattr(parent, name, child)


class _WholeBatchNoise(nn.Module):
    """Draws the noise of a layer for the whole batch, as one worker would, and uses this worker's part of it."""

    def __init__(self, layer: nn.Module, part: Part) -> None:
        super().__init__()
        self.layer, self._part = layer, part

    def forward(self, batch: Tensor) -> Tensor:
        if not self.training:
            return batch
        # In the batch's own layout of memory, in whose order the noise is drawn.
        layout = torch.channels_last if batch.ndim == 4 else torch.contiguous_format
        ones = batch.new_ones((self._part.total, *batch.shape[1:])).contiguous(memory_format=layout)
        noise: Tensor = self.layer(ones)
        return batch * noise[self._part.own]


class _WholeBatchNorm(_BatchNorm):
    """Batch normalisation by the statistics of all workers' shares, on any device.

    `torch.nn.SyncBatchNorm` does the same, but only on GPUs.
    """

    def __init__(self, layer: _BatchNorm) -> None:
        super().__init__(
            layer.num_features,
            eps=layer.eps,
            momentum=layer.momentum,
            affine=layer.affine,
            track_running_stats=layer.track_running_stats,
            device="meta",
        )
        self._parameters, self._buffers = layer._parameters, layer._buffers  # the same tensors, not copies
        self.train(layer.training)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions: the layer that this one stands for has its own idea of it."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        output, mean, variance, count = _Normalise.apply(input, self.weight, self.bias, self.eps)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            rate = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(variance * (count / (count - 1)), rate)
        return output


class _Normalise(torch.autograd.Function):
    """Normalise by the mean and the variance over all workers (Ioffe and Szegedy 2015, with their gradients)."""

    @staticmethod
    def forward(  # type: ignore[override]  # torch declares it for any arguments
        context: Any, batch: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        channels = batch.shape[1]
        # Statistics of pictures in half precision have the digits of the running ones, which momentum 0 leaves alone.
        digits = torch.promote_types(batch.dtype, torch.float32)
        running = [batch.new_zeros(channels, dtype=digits) for _ in range(2)]
        # What batch normalisation itself uses; `torch.var_mean` takes fifteen times as long in this layout.
        mean, variance = torch.ops.aten.batch_norm_update_stats(batch, *running, 0.0)
        count = batch.numel() // channels
        own = torch.cat([mean.double(), variance.double(), mean.new_tensor([count], dtype=torch.float64)])
        shares = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(shares, own)
        means, variances, counts = torch.stack(shares).split([channels, channels, 1], dim=1)
        total = counts.sum()
        # The variance of the whole is the mean of the parts' variances and of their means' squared distances.
        whole_mean = (counts * means).sum(0) / total
        whole_variance = (counts * (variances + (means - whole_mean).square())).sum(0) / total
        mean, variance = whole_mean.to(mean.dtype), whole_variance.to(mean.dtype)
        context.save_for_backward(batch, weight, mean, variance)
        context.eps, context.count = eps, total.item()
        context.set_materialize_grads(False)
        output = functional.batch_norm(batch, mean, variance, weight, bias, training=False, eps=eps)
        context.mark_non_differentiable(mean, variance)
        return output, mean, variance, context.count

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        batch, weight, mean, variance = context.saved_tensors
        deviation = (variance + context.eps).sqrt()
        # With given statistics the gradients of the weight and the bias are the two sums over the pictures that the
        # input's gradient needs: of gradient times normalised input, and of the gradient.
        _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, batch, torch.ones_like(mean), mean, variance, None, None, False, context.eps, [False, True, True]
        )
        sums = torch.cat([of_weight, of_bias]).double()
        torch.distributed.all_reduce(sums)
        mean_weight, mean_bias = (sums / context.count).to(mean.dtype).chunk(2)
        scale = 1 / deviation if weight is None else weight / deviation
        slope = -scale * mean_weight / deviation
        offset = -scale * mean_bias - slope * mean
        shape = [1, -1] + [1] * (batch.ndim - 2)
        of_batch = torch.addcmul(
            torch.addcmul(offset.view(shape), gradient, scale.view(shape)), batch, slope.view(shape)
        ).to(batch.dtype)
        return of_batch, None if weight is None else of_weight, None if weight is None else of_bias, None
