"""Which weights are trained and how fast: stages, learning rates, weight decay."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...core.network import NetworkError

# Parts of torchvision's networks that are not a stage, but hold the stages.
_HOLDERS = frozenset({"features", "encoder", "layers", "blocks", "trunk_output"})


def stages(network: nn.Module) -> list[list[nn.Module]]:
    """Cut a network into its stages, from the input to the classifier; return each one's modules.

    A stage is a part that the network's author named: `layer1` of a ResNet, a block of `features` of an EfficientNet,
    a layer of a transformer. Parts without weights belong to the stage before them. Together the stages hold all
    weights but those that the network holds itself.
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


def freeze(network: nn.Module, trainable: int) -> list[str]:
    """Exclude all but the last so many stages from training; raise NetworkError when there are fewer.

    Returns the names of the frozen modules, which must be put into evaluation mode whenever the network is put into
    training mode, so that their batch normalisation keeps its statistics.
    """
    all_stages = stages(network)
    if trainable > len(all_stages):
        raise NetworkError(f"this network has {len(all_stages)} stages; --train-stages {trainable} asks for more")
    trained = {id(p) for stage in all_stages[-trainable:] for module in stage for p in module.parameters()}
    for parameter in network.parameters():  # also those that are in no stage, such as a transformer's class token
        parameter.requires_grad_(id(parameter) in trained)
    names = {module: name for name, module in network.named_modules()}
    return [names[module] for stage in all_stages[:-trainable] for module in stage]


def parameter_groups(network: nn.Module, *, lr: float, weight_decay: float, lr_decay: float) -> list[dict[str, Any]]:
    """Return the optimiser's groups: a learning rate for each stage, and weight decay for matrices and kernels only.

    `lr` is that of the last stage, the classifier; `lr_decay`, above 0 to 1, the learning rate of a stage over that of
    the next one (discriminative fine-tuning, Howard and Ruder 2018). Biases and normalisation, which have one
    dimension, do not decay.
    """
    if lr_decay == 1:
        by_stage = [list(network.parameters())]
    else:
        by_stage = [[p for module in stage for p in module.parameters()] for stage in stages(network)]
        known = {id(parameter) for stage in by_stage for parameter in stage}
        by_stage[0] = [p for p in network.parameters() if id(p) not in known] + by_stage[0]
    groups = []
    for distance, parameters in enumerate(reversed(by_stage)):
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        decayed, free = [p for p in trained if p.ndim >= 2], [p for p in trained if p.ndim < 2]
        for decay, chosen in ((weight_decay, decayed), (0.0, free)):
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "lr": lr * lr_decay**distance})
    return groups
