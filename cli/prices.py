"""What AWS charges, so that nothing starts without saying so.

Source: AWS's public on-demand price list for us-east-1, November 2026, in US dollars. Other regions differ by up to a
third; AWS's own calculator has the last word.
"""

from __future__ import annotations

PRICE_LIST = "list prices of us-east-1, November 2026"

_USD_PER_HOUR = {
    "ml.m5.large": 0.115,
    "ml.m5.xlarge": 0.23,
    "ml.g4dn.xlarge": 0.736,
    "ml.t3.medium": 0.05,
    "t3.medium": 0.0416,
    "t3.large": 0.0832,
    "t3.xlarge": 0.1664,
    "t3.2xlarge": 0.3328,
    "m5.xlarge": 0.192,
    "g4dn.xlarge": 0.526,
    "g5.xlarge": 1.006,
}
# Lambda on arm64: while a call runs, and for keeping an instance warm (provisioned concurrency), called or not.
LAMBDA_USD_PER_GB_SECOND = 0.0000133334
PROVISIONED_USD_PER_GB_SECOND = 0.0000033334
LAMBDA_USD_PER_MILLION_CALLS = 0.20
# CloudWatch: a metric or an alarm by the month, logs by what comes in and by what is kept.
METRIC_USD_PER_MONTH = 0.30
ALARM_USD_PER_MONTH = 0.10
LOGS_USD_PER_GB = 0.50
LOGS_USD_PER_GB_MONTH = 0.03
KEY_USD_PER_MONTH = 1.00
S3_USD_PER_GB_MONTH = 0.023
IMAGES_USD_PER_GB_MONTH = 0.10


def usd_per_hour(instance_type: str) -> float | None:
    """Return the list price of one instance-hour, or None where this table does not have it."""
    return _USD_PER_HOUR.get(instance_type)


def hourly_price(instance_type: str, instances: int = 1) -> str:
    """Return the list price of some instances as a phrase for a person."""
    price = usd_per_hour(instance_type)
    if price is None:
        service = "sagemaker" if instance_type.startswith("ml.") else "ec2"
        return f"price of {instance_type} unknown here: see aws.amazon.com/{service}/pricing"
    return f"{price * instances:.3f} USD per hour on AWS, list price us-east-1"
