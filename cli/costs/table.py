"""Costs by the hour, their sum, and the one table that shows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table

from cli.console import console
from cli.prices import PRICE_LIST, price_note
from infra.prices import HOURS_PER_MONTH

_COLUMNS: tuple[tuple[str, Literal["rest", "most"], float, int], ...] = (
    ("an hour\nat rest", "rest", 1, 4),
    ("an hour\nat most", "most", 1, 4),
    ("a month\nat rest", "rest", HOURS_PER_MONTH, 2),
    ("a month\nat most", "most", HOURS_PER_MONTH, 2),
)


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
    table = Table(title=f"{title}, in USD ({PRICE_LIST})", title_justify="left", show_footer=True, box=None)
    table.add_column("", "all together", overflow="fold")
    for heading, load, factor, digits in _COLUMNS:
        total = Total.of(costs, load)
        least = "" if total.complete else "≥ "
        table.add_column(heading, f"{least}{total.usd * factor:.{digits}f}", justify="right", no_wrap=True)
    for cost in costs:
        prices = [(getattr(cost, load), factor, digits) for _, load, factor, digits in _COLUMNS]
        if any(usd != 0 for usd, *_ in prices):  # else it is billed by use alone
            figures = ("unknown" if usd is None else f"{usd * factor:.{digits}f}" for usd, factor, digits in prices)
            table.add_row(cost.what, *figures)
    console.print(table)
    for cost in costs:
        if cost.by_use:
            console.print(f"  {cost.what}: {cost.by_use}")
