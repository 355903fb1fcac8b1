"""Stores of MiniStack that grow without bound: log events and metric points. Each list of them is saved by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

#: Where a list belongs, what else is kept at that place, and the list.
Series = tuple[list[Any], Any, list[Any]]


class Growing(NamedTuple):
    """A store that only grows: the rest of its module's state is saved without it."""

    #: Every member of the rest; the store of a member is the module's ``_<member>``.
    keys: tuple[str, ...]
    series: Callable[[Any], Iterator[Series]]
    #: Puts one series back.
    restore: Callable[[Any, list[Any], Any, list[Any]], None]


def _log_streams(module: Any) -> Iterator[Series]:
    for group, record in list(module._log_groups._data.items()):
        yield [*group], {k: v for k, v in record.items() if k != "streams"}, []
        for name, stream in list(record["streams"].items()):
            yield [*group, name], {k: v for k, v in stream.items() if k != "events"}, stream["events"]


def _restore_log_stream(module: Any, path: list[Any], head: Any, items: list[Any]) -> None:
    account, region, group, *stream = path
    if stream:
        module._log_groups._data[account, region, group]["streams"][stream[0]] = {**head, "events": items}
    else:
        module._log_groups._data[account, region, group] = {**head, "streams": {}}


def _metric_points(module: Any) -> Iterator[Series]:
    for (account, region, (namespace, name, dimensions)), points in list(module._metrics._data.items()):
        yield [account, region, namespace, name, dimensions], None, points


def _restore_metric_points(module: Any, path: list[Any], head: Any, items: list[Any]) -> None:
    account, region, namespace, name, dimensions = path
    module._metrics._data[account, region, (namespace, name, _tuples(dimensions))] = items


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


GROWING = {
    # "log_records", the pointers that Logs Insights hands out, are left to end with the server.
    "cloudwatch_logs": Growing(
        keys=(
            *("destinations", "resource_policies", "log_group_policies", "metric_filters", "queries"),
            *("delivery_sources", "delivery_destinations", "deliveries"),
        ),
        series=_log_streams,
        restore=_restore_log_stream,
    ),
    "cloudwatch": Growing(
        keys=("alarms", "composite_alarms", "composite_triggers", "alarm_history", "dashboards", "resource_tags"),
        series=_metric_points,
        restore=_restore_metric_points,
    ),
}
