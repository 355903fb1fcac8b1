"""The tables ``[security]`` and ``[audit]`` of the settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from infra.tables.function import RoleArn
from infra.validation import Table, matching


@dataclass(frozen=True, kw_only=True)
class SecuritySettings(Table):
    """What an account demands of every role."""

    #: Name (of a policy of the stage's account) or ARN of the policy that no role of the stacks can exceed.
    permissions_boundary: Annotated[
        str,
        matching(r"(arn:aws[a-z-]*:iam::(\d{12}|aws):policy/)?[\w+=,.@/-]{1,128}", "the name or the ARN of a policy"),
    ]


@dataclass(frozen=True, kw_only=True)
class AuditSettings(Table):
    """A role that may read what `kennel audit` looks at, and nothing else."""

    #: Who may assume it.
    trusted: tuple[RoleArn, ...]

    def conflicts(self) -> Iterator[str]:
        if not self.trusted:
            yield "trusted: name at least one ARN, or leave the table out for no role"
