"""Regions: MiniStack keeps the state of each apart, and takes any name for one."""

from __future__ import annotations

import functools
from typing import Any

from botocore.loaders import Loader


def install() -> None:
    """Refuse requests for regions that AWS does not have, or that are of another partition than our ARNs."""
    from ministack.core import iam_evaluator

    partitions = Loader().load_data("endpoints")["partitions"]
    known = frozenset(next(partition["regions"] for partition in partitions if partition["partition"] == "aws"))
    judge = iam_evaluator.enforce

    @functools.wraps(judge)
    def enforce(access_key_id: str, iam_action: str, service: str, region: str, *args: Any, **options: Any) -> Any:
        if region not in known:
            return iam_evaluator.AuthError(
                "SignatureDoesNotMatch",
                f"Credential should be scoped to a valid region, not '{region}'. The local AWS has the regions of the "
                "partition aws.",
            )
        return judge(access_key_id, iam_action, service, region, *args, **options)

    iam_evaluator.enforce = enforce
