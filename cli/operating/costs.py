"""What a stage costs by itself, before anybody uses it: at rest, and at the most."""

from __future__ import annotations

from cli.prices import (
    ALARM_USD_PER_MONTH,
    KEY_USD_PER_MONTH,
    LAMBDA_USD_PER_GB_SECOND,
    LAMBDA_USD_PER_MILLION_CALLS,
    LOGS_USD_PER_GB,
    METRIC_USD_PER_MONTH,
    PRICE_LIST,
    PROVISIONED_USD_PER_GB_SECOND,
    S3_USD_PER_GB_MONTH,
    hourly_price,
    usd_per_hour,
)
from infra.settings import Settings

#: The metrics that the function and the model server put into their logs, each billed while it gets values: the
#: function's four and one for each code of an error, the server's eleven.
FUNCTION_METRICS = 4 + 13
SERVER_METRICS = 11
#: Target tracking makes an alarm for scaling out and one for scaling in.
_ALARMS_PER_POLICY = 2
_HOURS_PER_MONTH = 730


def cost_lines(settings: Settings, kinds: list[str]) -> list[str]:
    """What the stacks cost once they are deployed, a line for each thing, for a person.

    Parameters
    ----------
    kinds : list of str
        Of the stacks: storage, training, inference.
    """
    lines = [f"Costs on AWS, {PRICE_LIST}:"]
    if "storage" in kinds:
        lines.append(
            f"  storage: key {KEY_USD_PER_MONTH:.2f} USD a month (up to {3 * KEY_USD_PER_MONTH:.2f} after two yearly "
            f"rotations); {S3_USD_PER_GB_MONTH} USD a month for each GB"
        )
    if "training" in kinds:
        notebook = settings.notebook
        lines.append("  training: nothing until a training runs, which then says what it costs")
        if notebook:
            price = hourly_price(notebook.instance_type)
            lines.append(f"  notebook {notebook.instance_type} while it runs: {price}; it stops itself when idle")
    if "inference" in kinds:
        lines += [_endpoint(settings), _function(settings), _observation(settings), _sum(settings)]
        lines.append("  Stop it all: kennel destroy")
    return lines


def endpoint_instances(settings: Settings) -> tuple[int, int]:
    """How many instances the endpoint has, at rest and at full load."""
    scaling, count = settings.serving.scaling, settings.serving.initial_instances
    return (scaling.min_instances, scaling.max_instances) if scaling else (count, count)


def warm_environments(settings: Settings) -> tuple[int, int]:
    """How many execution environments of the function are kept warm, at rest and at full load."""
    scaling, count = settings.function.scaling, settings.function.provisioned_concurrency
    return (scaling.min_provisioned, scaling.max_provisioned) if scaling else (count, count)


def _endpoint(settings: Settings) -> str:
    instance_type, (low, high) = settings.serving.instance_type, endpoint_instances(settings)
    name = f"  endpoint, {_span(low, high)} × {instance_type}"
    price = usd_per_hour(instance_type)
    if price is None:
        return f"{name}: {hourly_price(instance_type)}; an update doubles the instances for its minutes"
    return (
        f"{name}: {low * price:.3f} USD an hour at rest, {high * price:.3f} at full load; for the minutes of "
        f"an update, when the old and the new instances run, up to {2 * high * price:.3f}"
    )


def _usd_per_warm_hour(settings: Settings) -> float:
    return settings.function.memory_mb / 1024 * 3600 * PROVISIONED_USD_PER_GB_SECOND


def _function(settings: Settings) -> str:
    (low, high), hourly = warm_environments(settings), _usd_per_warm_hour(settings)
    second = settings.function.memory_mb / 1024 * LAMBDA_USD_PER_GB_SECOND
    return (
        f"  function, {_span(low, high)} kept warm: {low * hourly:.4f} USD an hour at rest, {high * hourly:.4f} at "
        f"full load; {second:.7f} for each second of a call and {LAMBDA_USD_PER_MILLION_CALLS:.2f} for a million calls"
    )


def _observation(settings: Settings) -> str:
    policies = sum(scaling is not None for scaling in (settings.serving.scaling, settings.function.scaling))
    metrics, alarms = FUNCTION_METRICS + SERVER_METRICS, policies * _ALARMS_PER_POLICY
    return (
        f"  CloudWatch: up to {metrics} metrics, {metrics * METRIC_USD_PER_MONTH:.2f} USD a month, in hours with calls "
        f"only; {alarms} alarms of scaling, {alarms * ALARM_USD_PER_MONTH:.2f} USD a month; logs {LOGS_USD_PER_GB:.2f} "
        "USD for each GB that comes in"
    )


def _span(low: int, high: int) -> str:
    return f"{low} to {high}" if low != high else str(low)


def _sum(settings: Settings) -> str:
    """What the hours of a month add up to, without what calls, stored data and logs cost."""
    price = usd_per_hour(settings.serving.instance_type)
    if price is None:
        return f"  endpoint and function: unknown, like the price of {settings.serving.instance_type}"
    counts = zip(endpoint_instances(settings), warm_environments(settings), strict=True)
    warm = _usd_per_warm_hour(settings)
    low, high = ((instances * price + environments * warm) * _HOURS_PER_MONTH for instances, environments in counts)
    return f"  endpoint and function: {low:.0f} USD a month at rest, {high:.0f} at full load"
