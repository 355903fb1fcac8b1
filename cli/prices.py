"""Prices for a person, so that nothing starts without saying what it costs; they stand in `infra.prices`."""

from __future__ import annotations

from infra.prices import PRICE_LIST, UNIT, serverless_usd_per_second, usd_per_hour, usd_per_million_images

__all__ = [
    "PRICE_LIST",
    "UNIT",
    "hourly_price",
    "serverless_usd_per_second",
    "usd_per_hour",
    "usd_per_million_images",
]


def hourly_price(instance_type: str, instances: int = 1) -> str:
    """Return the list price of some instances as a phrase for a person."""
    price = usd_per_hour(instance_type)
    if price is None:
        service = "sagemaker" if instance_type.startswith("ml.") else "ec2"
        return f"price of {instance_type} unknown here: see aws.amazon.com/{service}/pricing"
    return f"{price * instances:.3f} USD per hour on AWS, list price us-east-1"
