"""`kennel plan`: compare the ways to serve a load, and print the settings to use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cli.aws import Stage
from cli.console import console
from cli.errors import NotReadyError, UsageError, WorkFailedError
from cli.load.command import Goal
from cli.prices import PRICE_LIST
from infra.prices import HOURS_PER_MONTH

if TYPE_CHECKING:
    from cli.planning.offers import Offer
    from cli.planning.traffic import Series

_MAX_IMAGE_KB = 4608  # of a function's 6 MB in base64; InvokeEndpoint takes 6 MB, a serverless endpoint 4 MB
_BARS, _COLUMNS = " ▁▂▃▄▅▆▇█", 72


def plan(
    context: typer.Context,
    rate: Annotated[float, typer.Option(min=0.01, max=100_000, help="Requests per second at the peak.")],
    p95: Goal = 300,
    pattern: Annotated[
        str, typer.Option(help="steady, daily, spiky, or a CSV file of seconds and requests per second.")
    ] = "daily",
    hours: Annotated[float, typer.Option(min=0.25, max=168, help="How long to simulate.")] = 24,
    image_kb: Annotated[float, typer.Option("--image-kb", min=1, help="The size of an image.")] = 120,
    start: Annotated[float, typer.Option("--instance-start", min=0, help="Seconds until a new instance serves.")] = 300,
    output: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the recommended one over time.")] = None,
) -> None:
    """Plan for a load: simulate instances, scaling and quotas; compare costs; print the settings to use.

    The rate of an instance is max_rps_per_instance of the stage's settings (kennel load-test --write). Nothing is
    asked of AWS. Exit code 5: nothing holds the goal.
    """
    from cli.planning.offers import STOCK_RATE, Question  # numpy
    from cli.planning.traffic import make_traffic

    stage: Stage = context.obj
    scaling = stage.settings.serving.scaling
    if scaling is None:
        raise NotReadyError(
            f"{stage.settings_file} has no [serving.scaling], whose max_rps_per_instance says what an instance bears.",
            "Measure it on a stage that has: kennel --stage dev load-test --write, kennel --stage dev plan",
        )
    if image_kb > _MAX_IMAGE_KB:
        raise UsageError(f"--image-kb {image_kb:g}: a request holds {_MAX_IMAGE_KB} KB; kennel data shrink makes less.")
    traffic = make_traffic(pattern, rate, hours)
    question = Question(stage.settings, scaling, traffic, p95 / 1000, image_kb * 1024, start)
    offers = list(question.offers())
    console.print(
        f"Traffic: {pattern}, {hours:g} h, {rate:,g} requests/s at the peak, {traffic.sum():,.0f} in all. "
        f"Goal: p95 <= {p95:g} ms. Costs of endpoint, function and data: {PRICE_LIST}."
    )
    console.print(_table(offers, HOURS_PER_MONTH / hours))
    console.print(
        f"{stage.settings.serving.instance_type}: {scaling.max_rps_per_instance:g} requests/s, as in "
        f"{stage.settings_file}. Other types are scaled from it by vCPUs, serverless by memory: not measured. "
        f"Stock PyTorch stack: {STOCK_RATE:g} images/s, measured on 2 vCPUs.\n"
    )
    usable = [offer for offer in offers if offer.holds and offer.settings]
    if not usable:
        raise WorkFailedError(
            "Nothing of this holds the goal.",
            "Allow a longer latency (--p95), spread the load over several endpoints, or measure a faster type "
            "(serving.instance_type, then kennel load-test).",
        )
    best = min(usable, key=lambda offer: offer.usd)
    console.print(f"Cheapest that holds the goal: {best.name}")
    if best.instances is not None:
        console.print(f"  instances in service, 0 to {best.instances.max():.0f}: {_bars(best.instances)}")
    console.print("\n".join(["Quotas to have:", *(f"  {quota}" for quota in best.quotas)]))
    console.print(f"Settings to use, in {stage.settings_file}:\n\n{best.settings}")
    if output:
        from cli.charts import draw_plan  # matplotlib

        draw_plan(best, traffic, output)
        console.print(f"\nChart: {output}")


def _table(offers: Sequence[Offer], months: float) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("", "instances", "late", "refused", "USD/month", "USD/million", "goal"):
        table.add_column(name, justify="left" if name in ("", "goal") else "right", no_wrap=True)
    for offer in offers:
        counts, at_once = offer.instances, f"{offer.most} at once"
        size = at_once if counts is None else f"{counts.min():.0f}–{counts.max():.0f}"
        table.add_row(
            offer.name,
            f"{offer.most} of {offer.needed:,}" if offer.needed > offer.most and not offer.holds else size,
            f"{offer.late / offer.requests:.1%}",
            f"{offer.refused / offer.requests:.1%}",
            f"{offer.usd * months:,.0f}",
            f"{offer.usd_per_million:,.2f}",
            "holds" if offer.holds else "misses",
        )
    return table


def _bars(values: Series) -> str:
    """Draw values from 0 as blocks in one line."""
    import numpy as np

    groups = [part.max() for part in np.array_split(values, _COLUMNS)]
    return "".join(_BARS[round(group / max(groups) * (len(_BARS) - 1))] for group in groups)
