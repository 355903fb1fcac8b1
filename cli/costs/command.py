"""`kennel cost`, and what a deployment changes: what a stage costs by its settings, now, and afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import typer

from cli.aws import Stage
from cli.console import AsJson, console, show
from cli.costs.planned import STACKS, million_images, planned_costs
from cli.costs.running import running_costs
from cli.costs.table import Cost, Total, print_costs
from cli.errors import AwsError, NotReadyError
from infra.prices import PRICE_LIST


@dataclass(frozen=True)
class Comparison:
    """What the settings say and what runs; `unknown` is why AWS could not be asked for that."""

    stacks: Sequence[str]
    planned: Sequence[Cost]
    now: Sequence[Cost] = ()
    unknown: str = ""

    @property
    def after(self) -> list[Cost]:
        """What is billed after the deployment: what it makes, and what it leaves alone."""
        return [*self.planned, *(cost for cost in self.now if cost.stack not in self.stacks)]

    @property
    def difference(self) -> float | None:
        """What the deployment adds by the hour at rest; less than nothing when it saves, None where that is unknown."""
        now, after = Total.of(self.now), Total.of(self.after)
        known = now.complete and after.complete and not self.unknown
        return round(after.usd - now.usd, 6) + 0 if known else None  # no -0

    def as_json(self) -> dict[str, Any]:
        """Return all of it for a program, in US dollars by the hour; null is what AWS could not be asked for."""
        rows = {name: getattr(self, name) for name in ("planned", "now", "after")}
        costs: dict[str, Any] = {name: [asdict(cost) for cost in each] for name, each in rows.items()}
        totals: dict[str, Any] = {name: asdict(Total.of(each)) for name, each in rows.items()}
        if self.unknown:
            costs["now"] = costs["after"] = totals["now"] = totals["after"] = None
        totals["planned_at_most"] = asdict(Total.of(self.planned, "most"))
        return {**costs, "totals": totals, "difference": self.difference, "unknown": self.unknown, "prices": PRICE_LIST}

    def tell(self) -> None:
        """Show the table of what is planned, and how that differs from what runs."""
        print_costs("Costs by the settings", self.planned)
        if self.unknown:
            console.print(f"What runs now is not known: {self.unknown}")
            return
        change = "not known" if self.difference is None else f"{self.difference:+.4f}"
        console.print(f"Now {Total.of(self.now)}; deployed, at rest, {Total.of(self.after)}; difference {change}.")


def compare(stage: Stage, stacks: Sequence[str]) -> Comparison:
    """Return what stacks would cost and what the stage costs now; costs are said, too, where AWS cannot be asked."""
    planned = planned_costs(stage.settings, stacks)
    try:
        return Comparison(stacks, planned, running_costs(stage))
    except (AwsError, NotReadyError) as error:
        return Comparison(stacks, planned, unknown=f"{error} {error.hint}".rstrip())


def cost(context: typer.Context, as_json: AsJson = False) -> None:
    """Say what the stage costs by its settings and now, in USD."""
    stage: Stage = context.obj
    comparison, images = compare(stage, STACKS), million_images(stage.settings)
    if not as_json:
        comparison.tell()
        if comparison.now:
            print_costs("What runs now", comparison.now)
    document = {**comparison.as_json(), "million_images": images}
    show(document, f"A million images, {images}; the function besides.")
