"""What a stage costs by itself, before anybody uses it: at rest, and at the most."""

from __future__ import annotations

from cli.prices import PRICE_LIST, UNIT, hourly_price, usd_per_hour
from infra.settings import Settings

#: The metrics that the function and the model server put into their logs, each billed while it gets values: the
#: function's four and one for each code of an error, the server's ten.
FUNCTION_METRICS = 4 + 13
SERVER_METRICS = 10
#: Target tracking makes an alarm for scaling out and one for scaling in.
_ALARMS_PER_POLICY = 2
_HOURS_PER_MONTH = 730


def cost_lines(settings: Settings, kinds: list[str]) -> list[str]:
    """Return what stacks (storage, training, inference) cost once they are deployed, a line for each thing."""
    lines = [f"Costs on AWS, {PRICE_LIST}:"]
    if "storage" in kinds:
        lines.append(
            f"  storage: key {UNIT['key_month']:.2f} USD a month (up to {3 * UNIT['key_month']:.2f} after two yearly "
            f"rotations); {UNIT['s3_gb_month']} USD a month for each GB"
        )
    if "training" in kinds:
        lines.append("  training: nothing until a training runs, which then says what it costs")
        if notebook := settings.notebook:
            price = hourly_price(notebook.instance_type)
            lines.append(f"  notebook {notebook.instance_type} while it runs: {price}; it stops itself when idle")
    if "inference" in kinds:
        lines += _inference(settings)
    return lines


def endpoint_instances(settings: Settings) -> tuple[int, int]:
    """Return how many instances the endpoint has, at rest and at full load."""
    scaling, count = settings.serving.scaling, settings.serving.initial_instances
    return (scaling.min_instances, scaling.max_instances) if scaling else (count, count)


def warm_environments(settings: Settings) -> tuple[int, int]:
    """Return how many execution environments of the function are kept warm, at rest and at full load."""
    scaling, count = settings.function.scaling, settings.function.provisioned_concurrency
    return (scaling.min_provisioned, scaling.max_provisioned) if scaling else (count, count)


def _inference(settings: Settings) -> list[str]:
    """Return the costs of endpoint, function and CloudWatch, and of the hours of a month of the first two."""
    instance_type, (low, high) = settings.serving.instance_type, endpoint_instances(settings)
    (warm_low, warm_high), gigabytes = warm_environments(settings), settings.function.memory_mb / 1024
    warm = gigabytes * 3600 * UNIT["lambda_arm64_warm_gb_second"]
    price = usd_per_hour(instance_type)
    if price is None:
        endpoint = f"{hourly_price(instance_type)}; an update doubles the instances for its minutes"
        month = f"unknown, like the price of {instance_type}"
    else:
        endpoint = (
            f"{low * price:.3f} USD an hour at rest, {high * price:.3f} at full load; for the minutes of an update, "
            f"when the old and the new instances run, up to {2 * high * price:.3f}"
        )
        at_rest, at_most = low * price + warm_low * warm, high * price + warm_high * warm
        month = f"{at_rest * _HOURS_PER_MONTH:.0f} USD a month at rest, {at_most * _HOURS_PER_MONTH:.0f} at full load"
    policies = sum(scaling is not None for scaling in (settings.serving.scaling, settings.function.scaling))
    metrics, alarms = FUNCTION_METRICS + SERVER_METRICS, policies * _ALARMS_PER_POLICY
    return [
        f"  endpoint, {_span(low, high)} × {instance_type}: {endpoint}",
        f"  function, {_span(warm_low, warm_high)} kept warm: {warm_low * warm:.4f} USD an hour at rest, "
        f"{warm_high * warm:.4f} at full load; {gigabytes * UNIT['lambda_arm64_gb_second']:.7f} for each second of "
        f"a call and {UNIT['lambda_million_calls']:.2f} for a million calls",
        f"  CloudWatch: up to {metrics} metrics, {metrics * UNIT['metric_month']:.2f} USD a month, in hours with calls "
        f"only; {alarms} alarms of scaling, {alarms * UNIT['alarm_month']:.2f} USD a month; logs {UNIT['logs_gb']:.2f} "
        "USD for each GB that comes in",
        f"  endpoint and function: {month}",
        "  Stop it all: kennel destroy",
    ]


def _span(low: int, high: int) -> str:
    return f"{low} to {high}" if low != high else str(low)
