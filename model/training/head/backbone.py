"""A network in two parts: the backbone makes features of an image, and the head makes logits of those."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ...core.network import NetworkError, classifier_name


def split(network: nn.Module, architecture: str, input_size: int) -> tuple[nn.Module, nn.Module]:
    """Take a network apart before its last layer; raise NetworkError when it does not come apart.

    The head is what weights for other classes leave out (`network.build`): the last layer, with the dropout before it
    and what follows it. Hidden layers of a classifier, as in VGG and MobileNet, belong to the backbone.

    Returns the backbone, a frozen copy in evaluation mode that makes features, float32 [N, D], of images, and the head,
    which makes logits of those. Its layers are the network's own, so that what trains the head trains the network.
    """
    name = classifier_name(network)
    parent_name, _, child = name.rpartition(".")
    parent = network.get_submodule(parent_name)
    siblings = list(parent.named_children())
    first = last = [sibling for sibling, _ in siblings].index(child)
    if first and isinstance(siblings[first - 1][1], nn.Dropout):
        first -= 1
    if isinstance(parent, nn.Sequential):  # only there does the order of the layers say the order of their work
        last = len(siblings) - 1
    layers = siblings[first : last + 1]

    truncated = copy.deepcopy(network)
    for sibling, _ in layers:
        setattr(truncated.get_submodule(parent_name), sibling, nn.Identity())
    backbone = nn.Sequential(truncated, nn.Flatten()).eval().requires_grad_(False)
    head = nn.Sequential(*[layer for _, layer in layers])
    example = torch.randn(2, 3, input_size, input_size, generator=torch.Generator().manual_seed(0))
    shape, expected = _trace(network, name, example)
    if len(shape) > 1:  # a convolution makes the logits, as in SqueezeNet
        head = nn.Sequential(nn.Unflatten(1, shape), *head, nn.Flatten())
    try:
        with torch.inference_mode():
            parts_agree = torch.allclose(head.eval()(backbone(example)), expected, rtol=1e-4, atol=1e-5)
    except RuntimeError:  # their shapes do not fit
        parts_agree = False
    if not parts_agree:
        raise NetworkError(f"{architecture} cannot be split into a backbone and a head; train it with --mode finetune")
    return backbone, head


@torch.inference_mode()
def _trace(network: nn.Module, layer: str, example: Tensor) -> tuple[torch.Size, Tensor]:
    """Return the shape of what reaches a layer, without that of the batch, and the network's answer."""
    seen: list[Tensor] = []
    hook = network.get_submodule(layer).register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    training = network.training
    try:
        return_value = network.eval()(example)
    finally:
        hook.remove()
        network.train(training)
    return seen[0].shape[1:], return_value
