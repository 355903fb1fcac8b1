"""Tags: what the Resource Groups Tagging API lists besides MiniStack's own, and what IAM's lists leave out."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

from ministack.core.responses import get_region
from ministack.services import cloudwatch_logs, iam, tagging

from emulator.platform.errors import Response

_Tagged = Iterator[tuple[str, list[dict[str, str]]]]


def install(account: str, sagemaker: Callable[[str], _Tagged]) -> None:
    """Have the tagging API list these services, too; `sagemaker` yields what there is of it in a region."""

    def logs() -> _Tagged:
        for name, group in cloudwatch_logs._log_groups.items():
            yield f"arn:aws:logs:{get_region()}:{account}:log-group:{name}", tagging._normalise_flat(group["tags"])

    collectors: dict[str, Callable[[], _Tagged]] = tagging._COLLECTORS
    collectors |= {"sagemaker": lambda: sagemaker(get_region()), "logs": logs}
    for kind in ("Roles", "Users", "Policies", "InstanceProfiles"):
        name = f"List{kind}"
        iam._IAM_HANDLERS[name] = functools.partial(_without_tags, iam._IAM_HANDLERS[name])


def _without_tags(inner: Callable[[Any], Response], parameters: Any) -> Response:
    status, headers, body = inner(parameters)
    return status, headers, re.sub(rb"<Tags>.*?</Tags>", b"", body, flags=re.DOTALL)
