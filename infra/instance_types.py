"""What the name of an ML instance type says, and which names SageMaker takes."""

from __future__ import annotations

import re
from functools import cache

import botocore.loaders

# Families with disks of their own although their name has no `d` after the generation: accelerated instances.
# Source: the EC2 user guide, "Instance store volumes".
_ACCELERATED_WITH_LOCAL_STORAGE = re.compile(r"(dl\d+|g[5-9]e?|p[5-9].*|trn\d+n?)")


@cache
def _shapes() -> dict[str, dict[str, list[str]]]:
    """SageMaker's API model as botocore ships it: a file on disk, no call to AWS."""
    model: dict[str, dict[str, dict[str, list[str]]]] = botocore.loaders.Loader().load_service_model(
        "sagemaker", "service-2"
    )
    return model["shapes"]


def hosting() -> frozenset[str]:
    """Instance types that a real-time endpoint can run on."""
    return frozenset(_shapes()["ProductionVariantInstanceType"]["enum"])


def training() -> frozenset[str]:
    """Instance types that a training job can run on."""
    return frozenset(_shapes()["TrainingInstanceType"]["enum"])


def family(instance_type: str) -> str:
    """The family of an instance type: ``c7g`` of ``ml.c7g.large``."""
    return instance_type.split(".")[1]


def architecture(instance_type: str) -> str:
    """The instruction set, in the words of container images: ``arm64`` (Graviton, Grace) or ``x86_64``."""
    return "arm64" if re.fullmatch(r"[cmrt]\d+g[a-z]*|.+-gb\d+", family(instance_type)) else "x86_64"


def has_local_storage(instance_type: str) -> bool:
    """Whether the machine has disks of its own, which hardware encrypts.

    SageMaker refuses a KMS key for the volumes of such instances (CreateEndpointConfig, `KmsKeyId`).
    """
    name = family(instance_type)
    return bool(re.fullmatch(r"[a-z]+\d+[a-z]*d[a-z]*", name) or _ACCELERATED_WITH_LOCAL_STORAGE.fullmatch(name))
