"""What AWS charges, in US dollars: the dated table beside this file, for the stacks and for the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TABLE: dict[str, Any] = tomllib.loads((Path(__file__).parent / "table.toml").read_text(encoding="utf-8"))
#: Whose prices these are, and of when, for a person.
PRICE_LIST = f"list prices of {_TABLE['region']}, {_TABLE['date']}"
#: All but instances; the table says in which unit and where from.
UNIT: Mapping[str, float] = _TABLE["unit"]
#: The month that AWS's own examples count with.
HOURS_PER_MONTH = 730


def usd_per_hour(instance_type: str) -> float | None:
    """Return the price of one instance-hour of SageMaker (`ml.…`) or EC2, or None where the table does not have it."""
    sagemaker, ec2, computed = _TABLE["sagemaker"], _TABLE["ec2"], _TABLE["sagemaker_from_ec2"]
    listed = sagemaker.get(instance_type, ec2.get(instance_type))
    if listed is not None or not instance_type.startswith("ml."):
        return None if listed is None else float(listed)
    bare = instance_type.removeprefix("ml.")
    known = bare in ec2 and bare.split(".")[0] in computed["families"]
    return round(ec2[bare] * computed["factor"], 6) if known else None


def serverless_usd_per_second(memory_mb: int) -> float:
    """Return the price of a second of a request to a serverless endpoint; a second without requests costs nothing."""
    return UNIT["sagemaker_serverless_gb_second"] * memory_mb / 1024


def usd_per_million_images(usd_per_hour: float, images_per_second: float) -> float:
    """Return what a million images cost on something that is fully used, at a measured rate.

    Parameters
    ----------
    usd_per_hour : float
        The price of an instance, or of a serverless endpoint's 3600 seconds.
    images_per_second : float
        What the same thing answers: an instance, or one request after another of a serverless endpoint.
    """
    return usd_per_hour / 3600 / images_per_second * 1e6
