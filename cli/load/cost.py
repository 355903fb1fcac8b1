"""What a load test costs, said before it starts."""

from __future__ import annotations

from cli.console import console
from cli.costs.planned import endpoint_instances
from cli.prices import PRICE_LIST, UNIT, serverless_usd_per_second, usd_per_hour
from infra.settings import Settings

# Target tracking takes an instance away after 15 minutes below its target.
_SCALE_IN_SECONDS = 15 * 60


def tell_cost(settings: Settings, requests: float, seconds: float, latency_ms: float, *, direct: bool) -> float:
    """Print and return the US dollars of so many requests, if each takes the latency that is allowed.

    The instances that the load makes scaling start are counted for its time, and until they are taken away again.
    """
    function, (low, high) = settings.function, endpoint_instances(settings)
    per_second = 0.0 if direct else function.memory_mb / 1024 * UNIT["lambda_arm64_gb_second"]
    if settings.serving.kind == "serverless":
        per_second += serverless_usd_per_second(settings.serving.serverless.memory_mb)
    per_call = 0 if direct else UNIT["lambda_million_calls"] / 1e6
    calls = requests * (per_call + latency_ms / 1000 * per_second)
    price = usd_per_hour(settings.serving.instance_type)
    instances = (high - low) * (price or 0) * (seconds + _SCALE_IN_SECONDS) / 3600
    unknown = "" if price or high == low else f"; the price of {settings.serving.instance_type} is unknown here"
    console.print(
        f"At most {requests:,.0f} requests in {seconds / 60:.0f} minutes, {calls + instances:.2f} USD on AWS "
        f"({PRICE_LIST}): {calls:.2f} for requests, {instances:.2f} for instances that scaling starts{unknown}."
    )
    return calls + instances
