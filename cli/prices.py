"""Prices for a person, so that nothing starts without saying what it costs; they stand in `infra.prices`."""

from __future__ import annotations

from infra.prices import HOURS_PER_MONTH, PRICE_LIST, UNIT, serverless_usd_per_second, usd_per_hour

__all__ = ["PRICE_LIST", "UNIT", "job_price", "serverless_usd_per_second", "unknown_price", "usd_per_hour"]


def unknown_price(instance_type: str) -> str:
    """Say that the table lacks an instance type, and where its price stands."""
    service = "sagemaker" if instance_type.startswith("ml.") else "ec2"
    return f"price of {instance_type} unknown here: see aws.amazon.com/{service}/pricing"


def job_price(
    instance_type: str, instances: int = 1, *, volume_gb: int = 0, seconds: int = 0, jobs: int = 1, at_once: int = 1
) -> str:
    """Return what some like jobs cost with their volumes, as a phrase for a person: by the hour, and at most.

    `seconds` is how long each job may run; without, nothing says what they cost at most. `at_once` run at a time.
    """
    price = usd_per_hour(instance_type)
    if price is None:
        return unknown_price(instance_type)
    sagemaker = instance_type.startswith("ml.")
    price += volume_gb * UNIT["sagemaker_volume_gb_month" if sagemaker else "ebs_gp3_gb_month"] / HOURS_PER_MONTH
    price += 0 if sagemaker else UNIT["public_address_hour"]
    hours = jobs * instances * seconds / 3600
    at_most = f", at most {price * hours:.2f} USD in {hours:.1f} instance-hours" if hours else ""
    return f"{price * instances * at_once:.3f} USD per hour{at_most}; {PRICE_LIST}"
