"""Learning rates and weight decay by network family, for AdamW on one cycle with batches of 64. Standard library only.

The published learning rates are for larger batches; they are scaled by the square root of the batch size, as timm's
train.py does for Adam. docs/measurements/training.md has what was measured here.
"""

from __future__ import annotations

from typing import NamedTuple

RANDOM = "none"
"""The value of `--weights` for random ones."""


class Defaults(NamedTuple):
    """What `--lr` and `--weight-decay` are without a value."""

    family: str
    lr: float
    weight_decay: float

    @property
    def search_lr(self) -> tuple[float, float]:
        """Between which learning rates a search looks: a tenth, and ten times as much."""
        return round(self.lr / 10, 9), round(self.lr * 10, 9)


# Measured: docs/measurements/training.md and head-training.md.
HEAD = Defaults("the head alone (--mode head)", 0.01, 0.1)
RESNET9 = Defaults("resnet9", 0.01, 0.1)
_RESNET9_TUNED = Defaults("resnet9, fine-tuned", 0.003, 0.1)
# torch.optim.AdamW's own learning rate: torchvision's recipes for these networks are for SGD. Fine-tuned: half of it.
# After little pretraining 0.001 was the best, and ImageNet's weights have more to lose. 0.01 destroyed what they knew.
_BATCH_NORM = Defaults("convolutions with batch normalisation", 0.001, 0.05)
_BATCH_NORM_TUNED = Defaults("convolutions with batch normalisation, fine-tuned", 0.0005, 0.05)
# torchvision's references/classification: a tenth of the learning rate of networks with batch normalisation.
_PLAIN = Defaults("AlexNet, SqueezeNet, VGG without _bn", 0.0001, 0.05)
_PLAIN_TUNED = Defaults("AlexNet, SqueezeNet, VGG without _bn, fine-tuned", 0.00003, 0.05)
# torchvision's references/classification: 0.001 for batches of 1,024 (ConvNeXt, Swin), 0.003 for 4,096 (ViT, MaxViT).
_LAYER_NORM = Defaults("ConvNeXt, MaxViT, Swin, ViT", 0.0003, 0.05)
# ConvNeXt's TRAINING.md: 0.00005 for batches of 512; Hugging Face's Trainer: the same for small ones.
_LAYER_NORM_TUNED = Defaults("ConvNeXt, MaxViT, Swin, ViT, fine-tuned", 0.00005, 0.05)

TABLE = (
    RESNET9, _RESNET9_TUNED, _BATCH_NORM, _BATCH_NORM_TUNED, _PLAIN, _PLAIN_TUNED, _LAYER_NORM, _LAYER_NORM_TUNED, HEAD,
)  # fmt: skip


def defaults_for(architecture: str, weights: str, mode: str) -> Defaults:
    """Return the defaults for a network, by the values of `--architecture`, `--weights` and `--mode`."""
    if mode == "head":
        return HEAD
    if architecture == "resnet9":
        random, tuned = RESNET9, _RESNET9_TUNED
    elif architecture.startswith(("convnext", "maxvit", "swin", "vit")):
        random, tuned = _LAYER_NORM, _LAYER_NORM_TUNED
    elif architecture.startswith(("alexnet", "squeezenet", "vgg")) and not architecture.endswith("_bn"):
        random, tuned = _PLAIN, _PLAIN_TUNED
    else:
        random, tuned = _BATCH_NORM, _BATCH_NORM_TUNED
    return random if weights == RANDOM else tuned
