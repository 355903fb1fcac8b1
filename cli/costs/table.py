"""Costs by the hour, their sum, the one table that shows them, and what a job costs in a phrase."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table

from cli.console import console
from infra.prices import HOURS_PER_MONTH, PRICE_LIST, price_note, usd_per_hour


@dataclass(frozen=True)
class Cost:
    """What a thing costs by the hour, in US dollars, at rest and at full load; None: its price is unknown."""

    stack: str  # the kind of stack that it belongs to, or "jobs"
    what: str
    rest: float | None
    most: float | None
    by_use: str = ""  # what is billed besides, for what is done with it
    #: Whether AWS says how much of it there is at a moment; what does not run is there when its stack is.
    runs: bool = False


def instances_cost(
    stack: str, what: str, instance_type: str, price: float | None, low: int, high: int, by_use: str = ""
) -> Cost:
    """Return what instances cost at a price by the hour, `low` of them at rest and `high` at full load."""
    number = f"{low} to {high}" if low != high else low
    rest, most = (None, None) if price is None else (low * price, high * price)
    by_use = "; ".join(filter(None, (price_note(instance_type), by_use)))
    return Cost(stack, f"{what}, {number} × {instance_type}", rest, most, by_use, runs=True)


@dataclass(frozen=True)
class Total:
    """A sum by the hour in US dollars; where not `complete`, prices are unknown and it is at least that."""

    usd: float
    complete: bool

    @classmethod
    def of(cls, costs: Iterable[Cost], load: Literal["rest", "most"] = "rest") -> Total:
        """Add what things cost at rest or at full load."""
        prices = [getattr(cost, load) for cost in costs]
        return cls(sum(price for price in prices if price is not None), None not in prices)

    def __str__(self) -> str:
        return f"{'' if self.complete else 'at least '}{self.usd:.4f} USD an hour"


def print_costs(title: str, costs: Sequence[Cost]) -> None:
    """Show what things cost by the hour and by the month, their sum, and what is billed by use."""
    table = Table(title=f"{title}, in USD ({PRICE_LIST})", title_justify="left", box=None)
    table.add_column("", overflow="fold")
    for heading in ("an hour\nat rest", "an hour\nat most", "a month\nat rest", "a month\nat most"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cost in costs:
        if (cost.rest, cost.most) != (0, 0):  # else it is billed by use alone
            table.add_row(cost.what, *_figures(cost.rest, cost.most))
    totals = Total.of(costs), Total.of(costs, "most")
    least = ["" if total.complete else "≥ " for total in totals] * 2
    figures = _figures(*(total.usd for total in totals))
    table.add_row("all together", *map("".join, zip(least, figures, strict=True)), style="bold")
    console.print(table)
    for cost in costs:
        if cost.by_use:
            console.print(f"  {cost.what}: {cost.by_use}")


def _figures(*hourly: float | None) -> list[str]:
    columns = ((usd, factor, digits) for factor, digits in ((1, 4), (HOURS_PER_MONTH, 2)) for usd in hourly)
    return ["unknown" if usd is None else f"{usd * factor:.{digits}f}" for usd, factor, digits in columns]


def job_price(
    instance_type: str, instances: int = 1, *, volume_gb: int = 0, seconds: int = 0, jobs: int = 1, at_once: int = 1
) -> str:
    """Return what some like jobs cost with their volumes, as a phrase for a person: by the hour, and at most.

    `seconds` is how long each job may run; without, nothing says what they cost at most. `at_once` run at a time.
    """
    price, note = usd_per_hour(instance_type, volume_gb), price_note(instance_type)
    hours = jobs * instances * seconds / 3600
    if price is None:
        return f"{note}; at most {hours:.1f} instance-hours" if hours else note
    at_most = f", at most {price * hours:.2f} USD in {hours:.1f} instance-hours" if hours else ""
    return "; ".join(filter(None, (f"{price * instances * at_once:.3f} USD per hour{at_most}", PRICE_LIST, note)))
