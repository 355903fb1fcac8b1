"""The table ``[cost_guard]`` of the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from infra.tables.alarms import Email
from infra.validation import Table, between

Hours = Annotated[int, between(1, 168)]


@dataclass(frozen=True, kw_only=True)
class CostGuardSettings(Table):
    """Who hears of costs, and what is stopped once it is forgotten."""

    #: E-mails at 80 and 100 percent of it, and when AWS expects more by the end of the month. AWS counts what carries
    #: the stage's tags, once these are active as cost allocation tags, and some hours late.
    monthly_usd: Annotated[int, between(1, 1_000_000)]
    #: Absent: only the topic of `[alarms]` hears of it.
    email: Email | None = None
    #: What happens to the endpoint when nobody has called it for `idle_hours`: "keep"; "minimum", its scaling's; or
    #: "delete": the next `kennel deploy` brings it back, and until then the function answers 503.
    idle_endpoint: Literal["keep", "minimum", "delete"] = "keep"
    idle_hours: Hours = 12
    #: Training instances on EC2 are terminated at this age; absent: they shut themselves down, as always.
    training_hours: Hours | None = None
    #: The notebook instance is stopped when it has run for so long, busy or not; absent: it stops itself when idle.
    notebook_hours: Hours | None = None

    @property
    def stops_something(self) -> bool:
        """Whether there is anything to do but tell."""
        return self.idle_endpoint != "keep" or bool(self.training_hours or self.notebook_hours)
