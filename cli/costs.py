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
        lines += [_endpoint(settings), *_function(settings), _observation(settings)]
        lines.append("  Stop it all: kennel destroy")
    return lines


def _endpoint(settings: Settings) -> str:
    serving = settings.serving
    price, rest = usd_per_hour(serving.instance_type), serving.initial_instances
    if serving.scaling:
        rest = serving.scaling.min_instances
    most = most_instances(settings)
    name = (
        f"  endpoint, {rest} to {most} × {serving.instance_type}:"
        if most > rest
        else (f"  endpoint, {rest} × {serving.instance_type}:")
    )
    if price is None:
        return f"{name} {hourly_price(serving.instance_type)}; a deployment doubles the instances for its minutes"
    return (
        f"{name} {rest * price:.3f} USD an hour at rest, {most * price:.3f} at the most; twice that for the minutes of "
        "a deployment, while the old and the new instances run"
    )


def most_instances(settings: Settings) -> int:
    """How many instances the endpoint has at full load."""
    serving = settings.serving
    return serving.scaling.max_instances if serving.scaling else serving.initial_instances


def most_provisioned(settings: Settings) -> int:
    """How many execution environments are kept warm at full load."""
    function = settings.function
    return function.scaling.max_provisioned if function.scaling else function.provisioned_concurrency or 0


def _function(settings: Settings) -> list[str]:
    function = settings.function
    gigabytes = function.memory_mb / 1024
    hourly = gigabytes * 3600 * PROVISIONED_USD_PER_GB_SECOND
    lines = [
        f"  function: {gigabytes * LAMBDA_USD_PER_GB_SECOND:.7f} USD for each second of a call and "
        f"{LAMBDA_USD_PER_MILLION_CALLS:.2f} for a million calls"
    ]
    if most := most_provisioned(settings):
        rest = function.scaling.min_provisioned if function.scaling else most
        lines.insert(0, f"  provisioned concurrency, {rest} to {most}: {rest * hourly:.4f} USD an hour at rest, "
                        f"{most * hourly:.4f} at the most")  # fmt: skip
    return lines


def _observation(settings: Settings) -> str:
    policies = sum(scaling is not None for scaling in (settings.serving.scaling, settings.function.scaling))
    metrics, alarms = FUNCTION_METRICS + SERVER_METRICS, policies * _ALARMS_PER_POLICY
    return (
        f"  CloudWatch: up to {metrics} metrics, {metrics * METRIC_USD_PER_MONTH:.2f} USD a month, in hours with calls "
        f"only; {alarms} alarms of scaling, {alarms * ALARM_USD_PER_MONTH:.2f} USD a month; logs {LOGS_USD_PER_GB:.2f} "
        "USD for each GB that comes in"
    )
