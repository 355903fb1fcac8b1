"""What AWS charges, in US dollars: the dated table beside this file, for the stacks and for the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra import instance_types

_TABLE: dict[str, Any] = tomllib.loads((Path(__file__).parent / "table.toml").read_text(encoding="utf-8"))
#: Whose prices these are, and of when, for a person.
PRICE_LIST = f"list prices of {_TABLE['region']}, {_TABLE['date']}"
#: All but instances; the table says in which unit and where from.
UNIT: Mapping[str, float] = _TABLE["unit"]
#: The month that AWS's own examples count with.
HOURS_PER_MONTH = 730
#: SageMaker guide, "SageMaker AI endpoint parameters for large model inference", `VolumeSizeInGB`.
_ENDPOINT_VOLUME_GB = 30


def usd_per_hour(instance_type: str, volume_gb: int = 0) -> float | None:
    """Return the price of an instance-hour of SageMaker (`ml.…`), or EC2 with a public address, and of its volume.

    None where it is unknown.
    """
    (price, _), sagemaker = _instance(instance_type), instance_type.startswith("ml.")
    volume = volume_gb * UNIT["sagemaker_volume_gb_month" if sagemaker else "ebs_gp3_gb_month"] / HOURS_PER_MONTH
    return None if price is None else price + volume + (0 if sagemaker else UNIT["public_address_hour"])


def endpoint_usd_per_hour(instance_type: str) -> float | None:
    """Return the price of an hour of an endpoint's instance, with the volume that those without own disks get."""
    volume_gb = 0 if instance_types.has_local_storage(instance_type) else _ENDPOINT_VOLUME_GB
    return usd_per_hour(instance_type, volume_gb)


def price_note(instance_type: str) -> str:
    """Say that the price of an instance type is unknown, or computed; empty where AWS publishes it."""
    price, computed = _instance(instance_type)
    if price is None:
        service = "sagemaker" if instance_type.startswith("ml.") else "ec2"
        return f"price of {instance_type} unknown here: see aws.amazon.com/{service}/pricing"
    share = _TABLE["sagemaker_from_ec2"]["factor"] - 1
    return f"price of {instance_type} computed: EC2's plus {share:.0%}" if computed else ""


def _instance(instance_type: str) -> tuple[float | None, bool]:
    """Return the price of an instance-hour, and whether it is computed from EC2's."""
    bare, computed = instance_type.removeprefix("ml."), _TABLE["sagemaker_from_ec2"]
    family, _, size = bare.partition(".")
    sagemaker, ec2 = (_TABLE[service].get(family, {}).get(size) for service in ("sagemaker", "ec2"))
    if bare == instance_type:
        return ec2, False
    if sagemaker is None and ec2 is not None and family in computed["families"]:
        return round(ec2 * computed["factor"], 6), True
    return sagemaker, False


def serverless_usd_per_second(memory_mb: int) -> float:
    """Return the price of a second of a request to a serverless endpoint; a second without requests costs nothing."""
    return UNIT["sagemaker_serverless_gb_second"] * memory_mb / 1024


def usd_per_million_images(usd_per_hour: float, images_per_second: float) -> float:
    """Return what a million images cost on an instance (or in a serverless container) that is fully used."""
    return usd_per_hour / 3600 / images_per_second * 1e6
