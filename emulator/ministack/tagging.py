"""The Resource Groups Tagging API for what MiniStack leaves out of it: SageMaker, and log groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ministack.core.responses import get_region
from ministack.services import cloudwatch_logs, tagging

_Tagged = Iterator[tuple[str, list[dict[str, str]]]]


def install(account: str, sagemaker: Callable[[str], _Tagged]) -> None:
    """Have the tagging API list these services, too; `sagemaker` yields what there is of it in a region."""

    def logs() -> _Tagged:
        for name, group in cloudwatch_logs._log_groups.items():
            yield f"arn:aws:logs:{get_region()}:{account}:log-group:{name}", tagging._normalise_flat(group["tags"])

    collectors: dict[str, Callable[[], _Tagged]] = tagging._COLLECTORS
    collectors |= {"sagemaker": lambda: sagemaker(get_region()), "logs": logs}
