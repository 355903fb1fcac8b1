"""What the name of an instance type says, and which names SageMaker and EC2 take."""

from __future__ import annotations

import re
from functools import cache, partial

import botocore.loaders

# Families with disks of their own although their name has no `d` after the generation: accelerated instances.
# Source: the EC2 user guide, "Instance store volumes".
_ACCELERATED_WITH_LOCAL_STORAGE = re.compile(r"(dl\d+|g[5-9]e?|p[5-9].*|trn\d+n?)")


@cache
def _names(service: str, shape: str) -> frozenset[str]:
    """Values of an enumeration in a service's API model as botocore ships it: a file on disk, no call to AWS."""
    model: dict[str, dict[str, dict[str, list[str]]]] = botocore.loaders.Loader().load_service_model(
        service, "service-2"
    )
    return frozenset(model["shapes"][shape]["enum"])


#: What a real-time endpoint can run on, a training job, a notebook instance, and anything on EC2.
hosting = partial(_names, "sagemaker", "ProductionVariantInstanceType")
training = partial(_names, "sagemaker", "TrainingInstanceType")
notebook = partial(_names, "sagemaker", "InstanceType")
ec2 = partial(_names, "ec2", "InstanceType")


def family(instance_type: str) -> str:
    """The family of an instance type: ``c7g`` of ``ml.c7g.large`` and of ``c7g.large``."""
    return instance_type.removeprefix("ml.").split(".")[0]


def architecture(instance_type: str) -> str:
    """The instruction set, in the words of container images: ``arm64`` (Graviton, Grace) or ``x86_64``."""
    # Behind the generation, a g says Graviton (EC2 instance types guide, "Naming conventions").
    return "arm64" if re.fullmatch(r"[a-z]+\d+[a-z]*g[a-z]*|a1|.+-gb\d+", family(instance_type)) else "x86_64"


def has_local_storage(instance_type: str) -> bool:
    """Whether the machine has disks of its own, which hardware encrypts.

    SageMaker refuses a KMS key for the volumes of such instances (CreateEndpointConfig, `KmsKeyId`).
    """
    name = family(instance_type)
    return bool(re.fullmatch(r"[a-z]+\d+[a-z]*d[a-z]*", name) or _ACCELERATED_WITH_LOCAL_STORAGE.fullmatch(name))


def is_burstable(instance_type: str) -> bool:
    """Whether CPU above a baseline is billed besides (EC2 user guide, "Burstable performance instances")."""
    return family(instance_type).startswith("t") and not family(instance_type).startswith("trn")
