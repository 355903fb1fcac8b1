"""The table ``[gate]`` of the settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal, get_args

from infra.validation import Table, matching

#: The rule packs of cdk-nag.
Pack = Literal["AwsSolutions", "HIPAA.Security", "NIST.800.53.R4", "NIST.800.53.R5", "PCI.DSS.321", "Serverless"]
PACKS: tuple[Pack, ...] = get_args(Pack)


@dataclass(frozen=True, kw_only=True)
class AcceptedFinding(Table):
    """A finding at one resource that is all right here; rule and path as the report writes them."""

    rule: Annotated[str, matching(r"[^:\[]+(\[.+\])?", "a rule's name, which is what stands behind the ::")]
    path: str
    reason: Annotated[str, matching(r"\S.{9,}", "a reason (10 characters or more)")]
    #: The last day on which it holds, such as 2027-01-31; absent: it does not end.
    until: date | None = None


@dataclass(frozen=True, kw_only=True)
class GateSettings(Table):
    """What examines the templates, beside the rules that always do."""

    packs: tuple[Pack, ...] = ("AwsSolutions",)
    accepted: tuple[AcceptedFinding, ...] = ()

    def conflicts(self) -> Iterator[str]:
        if "AwsSolutions" not in self.packs:
            yield 'packs: "AwsSolutions" stays, the constructs say what they need of it; add the others'
