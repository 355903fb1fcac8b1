"""`kennel plan`: compare the ways to serve a load, and print the settings to use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cli.aws import Stage
from cli.console import AsJson, console, show
from cli.errors import NotReadyError, UsageError, WorkFailedError
from cli.load.command import Goal
from infra.prices import HOURS_PER_MONTH, PRICE_LIST, endpoint_usd_per_hour, price_note

if TYPE_CHECKING:
    from cli.planning.offers import Offer

_MAX_IMAGE_KB = 4608  # of a function's 6 MB in base64; InvokeEndpoint takes 6 MB, a serverless endpoint 4 MB
_BARS, _COLUMNS = " ▁▂▃▄▅▆▇█", 72


def plan(
    context: typer.Context,
    rate: Annotated[float, typer.Option(min=0.01, max=100_000, help="Requests per second at the peak.")],
    p95: Goal = 300,
    pattern: Annotated[str, typer.Option(help="steady, daily, spiky, or a CSV file of seconds and rates.")] = "daily",
    image_kb: Annotated[float, typer.Option("--image-kb", min=1, help="The size of an image.")] = 120,
    start: Annotated[float, typer.Option("--instance-start", min=0, help="Seconds until a new instance serves.")] = 300,
    as_json: AsJson = False,
) -> None:
    """Simulate a day of a load, compare costs, print the settings.

    The rate of an instance is max_rps_per_instance of the stage's settings (kennel load-test --write). Nothing is
    asked of AWS. Exit code 5: nothing holds the goal.
    """
    from cli.planning.offers import STOCK_RATE, Question  # numpy
    from cli.planning.traffic import make_traffic

    stage: Stage = context.obj
    serving = stage.settings.serving
    if (scaling := serving.scaling) is None:
        raise NotReadyError(
            f"{stage.settings_file} has no [serving.scaling], whose max_rps_per_instance says what an instance bears.",
            "Measure it on a stage that has: kennel --stage dev load-test --write, kennel --stage dev plan",
        )
    if endpoint_usd_per_hour(serving.instance_type) is None:
        raise NotReadyError(f"There is nothing to compare: {price_note(serving.instance_type)}")
    if image_kb > _MAX_IMAGE_KB:
        raise UsageError(f"--image-kb {image_kb:g}: a request holds {_MAX_IMAGE_KB} KB; kennel data shrink makes less.")
    traffic = make_traffic(pattern, rate)
    question = Question(stage.settings, scaling, traffic, p95 / 1000, image_kb * 1024, start)
    offers = list(question.offers())
    console.print(
        f"Traffic: {pattern}, 24 h, {rate:,g} requests/s at the peak, {traffic.sum():,.0f} in all. "
        f"Goal: p95 <= {p95:g} ms. Costs of endpoint, function and data: {PRICE_LIST}."
    )
    usable = [offer for offer in offers if offer.holds and offer.settings]
    best = min(usable, key=lambda offer: offer.usd, default=None)
    cheapest = best and {"name": best.name, "quotas": best.quotas, "settings": best.settings}
    rows = [{"name": each.name, "holds": bool(each.holds), "usd_per_day": float(each.usd)} for each in offers]
    show({"offers": rows, "cheapest": cheapest}, _table(offers))
    console.print(
        f"{serving.instance_type}: {scaling.max_rps_per_instance:g} requests/s, as in {stage.settings_file}. "
        f"* not measured: other types are scaled from it by vCPUs, serverless by memory. "
        f"Stock PyTorch stack: {STOCK_RATE:g} images/s, measured on 2 vCPUs."
    )
    if scaling.schedules:
        console.print("The schedules of the settings are not simulated, and not among the settings below.")
    if best is None:
        raise WorkFailedError(
            "Nothing of this holds the goal.",
            "Allow a longer latency (--p95), spread the load over several endpoints, or measure a faster type "
            "(serving.instance_type, then kennel load-test).",
        )
    console.print(f"\nCheapest that holds the goal: {best.name}{'' if best.measured else ' (not measured: do)'}")
    if best.instances is not None:
        groups = best.instances.reshape(_COLUMNS, -1).max(axis=1)
        bars = "".join(_BARS[round(group / groups.max() * 8)] for group in groups)
        console.print(f"  instances in service, 0 to {groups.max():.0f}: {bars}")
    console.print("\n".join(["Quotas to have:", *(f"  {quota}" for quota in best.quotas)]))
    gone = "its scaling, rollout, capture and instance settings" if best.instances is None else "[serving.scaling]"
    console.print(f"Settings to use, in {stage.settings_file}, in place of {gone}:\n\n{best.settings}", markup=False)


def _table(offers: list[Offer]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("", "instances", "late", "refused", "USD/month", "USD/million", "goal"):
        table.add_column(name, justify="left" if name in ("", "goal") else "right", no_wrap=True)
    for offer in offers:
        counts, requests = offer.instances, offer.traffic.sum()
        size = f"{offer.most} at once" if counts is None else f"{counts.min():.0f}–{counts.max():.0f}"
        table.add_row(
            offer.name + "*" * (not offer.measured),
            f"{offer.most} of {offer.needed:,}" if offer.needed > offer.most and not offer.holds else size,
            f"{offer.late / requests:.1%}",
            f"{offer.refused / requests:.1%}",
            f"{offer.usd * HOURS_PER_MONTH / 24:,.0f}",
            f"{offer.usd_per_million:,.2f}",
            "holds" if offer.holds else "misses",
        )
    return table
