"""What a stage costs by its settings, before anybody uses it: at rest, and at full load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cli.costs.table import Cost, instances_cost
from infra.prices import (
    HOURS_PER_MONTH,
    UNIT,
    endpoint_usd_per_hour,
    serverless_usd_per_second,
    usd_per_hour,
    usd_per_million_images,
)
from infra.settings import Settings

STACKS = ("storage", "training", "inference")
#: The metrics that the function and the model server put into their logs, each billed while it gets values: the
#: function's four and one for each code of an error, the server's ten.
FUNCTION_METRICS = 4 + 13
SERVER_METRICS = 10
#: Target tracking makes an alarm for scaling out and one for scaling in.
_ALARMS_PER_POLICY = 2
#: `[alarms]` makes two for the function and two for any endpoint, and another one for instances.
ALARMS = {"serverless": 4, "instance": 5}
_DATA = f"{UNIT['sagemaker_data_gb']} for each GB in and out"


def planned_costs(settings: Settings, stacks: Iterable[str] = STACKS) -> list[Cost]:
    """Return what stacks cost once they are deployed, a row for each thing."""
    rows = dict(zip(STACKS, (_storage, _training, _inference), strict=True))
    return [cost for stack in stacks for cost in rows[stack](settings)]


def warm_cost(memory_mb: int, low: int, high: int, by_use: str = "") -> Cost:
    """Return what environments of the function cost that are kept warm, called or not."""
    usd = memory_mb / 1024 * 3600 * UNIT["lambda_arm64_warm_gb_second"]
    number = f"{low} to {high}" if low != high else low
    return Cost("inference", f"function, {number} kept warm", low * usd, high * usd, by_use, runs=True)


def million_images(settings: Settings) -> str:
    """Say what a million images cost on an endpoint that is fully used, at the rate that the settings say."""
    serving, scaling = settings.serving, settings.serving.scaling
    if serving.kind == "serverless":
        usd = serverless_usd_per_second(serving.serverless.memory_mb) * 1e6
        return f"endpoint: {usd:.2f} USD for each second that the model takes for an image"
    if scaling is None or (price := endpoint_usd_per_hour(serving.instance_type)) is None:
        return "endpoint: not known without the price of its instances and serving.scaling.max_rps_per_instance"
    usd, share = usd_per_million_images(price, scaling.max_rps_per_instance), scaling.safety_factor
    return (
        f"endpoint: {usd:.2f} USD at {scaling.max_rps_per_instance:g} images/s on each instance "
        f"(serving.scaling.max_rps_per_instance), {usd / share:.2f} at the {share:.0%} of it that scaling aims at"
    )


def _monthly(stack: str, what: str, usd: float, most: float | None = None, by_use: str = "") -> Cost:
    return Cost(stack, what, usd / HOURS_PER_MONTH, (usd if most is None else most) / HOURS_PER_MONTH, by_use)


def _storage(_: Settings) -> Iterator[Cost]:
    key = UNIT["key_month"]
    yield _monthly("storage", "key", key, 3 * key, "more after its first and its second yearly rotation")
    stored = f"{UNIT['s3_gb_month']} a month for each GB, {UNIT['ecr_gb_month']:.2f} for each GB of images"
    yield _monthly("storage", "buckets and image repository", 0, by_use=stored)


def _training(settings: Settings) -> Iterator[Cost]:
    if notebook := settings.notebook:
        yield _monthly("training", "notebook's volume", notebook.volume_gb * UNIT["sagemaker_volume_gb_month"])
        kind = notebook.instance_type
        yield instances_cost("training", "notebook", kind, usd_per_hour(kind), 0, 1, "while it runs")


def _inference(settings: Settings) -> Iterator[Cost]:
    serving, memory = settings.serving, settings.function.memory_mb
    if serving.kind == "serverless":
        yield _serverless(settings)
    else:
        update = "twice as much for the minutes of an update, when old and new instances run"
        kind, limits = serving.instance_type, serving.instances
        price = endpoint_usd_per_hour(kind)
        yield instances_cost("inference", "endpoint", kind, price, *limits, f"{update}; {_DATA}")
    low, high = settings.function.warm
    second = 1e6 * memory / 1024 * UNIT["lambda_arm64_warm_call_gb_second" if low else "lambda_arm64_gb_second"]
    calls = f"{UNIT['lambda_million_calls']:.2f} for a million calls, and {second:.2f} more if each takes a second"
    yield warm_cost(memory, low, high, calls)
    yield from _watching(settings)


def _serverless(settings: Settings) -> Cost:
    serverless = settings.serving.serverless
    second = serverless_usd_per_second(serverless.memory_mb)
    what = f"endpoint, serverless, {serverless.memory_mb} MB, up to {serverless.max_concurrency} requests at a time"
    by_use = f"{1000 * second:.3f} for 1000 s of requests; {_DATA}"
    if serverless.provisioned_concurrency:
        unknown = "price of provisioned concurrency unknown here: see aws.amazon.com/sagemaker/pricing"
        return Cost("inference", what, None, None, f"{unknown}; {by_use}", runs=True)
    return Cost("inference", what, 0, serverless.max_concurrency * second * 3600, by_use, runs=True)


def _watching(settings: Settings) -> Iterator[Cost]:
    metrics, scaling = FUNCTION_METRICS + SERVER_METRICS, settings.serving.scaling
    alarms = ALARMS[settings.serving.kind] if settings.alarms else 0
    alarms += _ALARMS_PER_POLICY if settings.function.scaling else 0
    alarms, metrics = (number + 1 if settings.drift else number for number in (alarms, metrics))
    fast = _ALARMS_PER_POLICY if scaling and scaling.metric == "concurrency" else 0
    alarms += _ALARMS_PER_POLICY if scaling and not fast else 0
    usd = alarms * UNIT["alarm_month"] + fast * UNIT["alarm_high_resolution_month"]
    yield _monthly("inference", f"{alarms + fast} alarms", usd)
    yield _monthly("inference", "dashboard", UNIT["dashboard_month"])
    own = metrics * UNIT["metric_month"]
    yield _monthly("inference", f"{metrics} metrics of our own", 0, own, "in hours with calls only")
    by_use = f"{UNIT['logs_gb']:.2f} for each GB that comes in, {UNIT['logs_gb_month']} a month for each that is kept"
    yield _monthly("inference", "logs", 0, by_use=by_use)
