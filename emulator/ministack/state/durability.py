"""Nothing that was acknowledged is lost when the server is killed.

MiniStack keeps its state in memory and saves it when it shuts down. Here, the state of a service is written to a
database before the answer to a request that changed it goes out; what changes in the background (a stack being
deployed, the log lines of a function) follows within a fraction of a second, and always before a request to
CloudFormation is answered, because "CREATE_COMPLETE" acknowledges whatever the stack made.

The database is not synced to the disk at each commit: it survives the death of the process, not that of the machine.

Where something cannot be written, because the disk is full, the request is answered with a status of 500 and not
acknowledged. It may have taken effect for the time being, and is saved once there is space again.

Two kinds of state:

- *Snapshots*: what a service would save at shutdown, written whole when it differs from what was last written. All of
  it is small: the bodies of S3 objects and their metadata are files of their own, which MiniStack writes at once.
- *Series*: log events and metric points grow without bound, so only what was added is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import logging
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.ministack.door import operations
from emulator.ministack.state.statedb import StateDatabase

logger = logging.getLogger(__name__)

Handler = Callable[..., Awaitable[Any]]

_READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: Operations that change nothing that has to be kept, by their first word or words.
_READS = (
    *("Get", "List", "Describe", "Head", "BatchGet", "Lookup", "Simulate", "Validate", "Estimate", "Detect"),
    *("Decrypt", "Encrypt", "ReEncrypt", "GenerateDataKey", "GenerateRandom", "Sign", "Verify", "AssumeRole", "Invoke"),
)
#: Services whose operations change their own state only; after a call to any other, all that is loaded is looked at.
_SELF_CONTAINED = frozenset(
    {"cloudwatch", "cloudwatch_logs", "ecr", "iam", "kms", "lambda_svc", "s3", "secretsmanager", "sns", "sqs", "ssm"}
)
_BACKGROUND_SECONDS = 0.25
#: The background save may take this share of the time.
_BACKGROUND_SHARE = 0.1
_ATTEMPTS = 20


@dataclass(frozen=True)
class _Growing:
    """A store that only grows: the rest of its module's state is saved without it.

    Attributes
    ----------
    keys
        Every member of the module's persisted state; the store of a member is the module's ``_<member>``.
    series
        Yields (path, head, items): where a list belongs, what else is kept at that place, and the list.
    restore
        Puts one such triple back.
    """

    keys: tuple[str, ...]
    series: Callable[[Any], Iterator[tuple[list[Any], Any, list[Any]]]]
    restore: Callable[[Any, list[Any], Any, list[Any]], None]


def _log_streams(module: Any) -> Iterator[tuple[list[Any], Any, list[Any]]]:
    for (account, region, group), record in list(module._log_groups._data.items()):
        yield [account, region, group], {k: v for k, v in record.items() if k != "streams"}, []
        for name, stream in list(record["streams"].items()):
            head = {k: v for k, v in stream.items() if k != "events"}
            yield [account, region, group, name], head, stream["events"]


def _restore_log_stream(module: Any, path: list[Any], head: Any, items: list[Any]) -> None:
    account, region, group, *stream = path
    if not stream:
        module._log_groups._data[account, region, group] = {**head, "streams": {}}
    else:
        module._log_groups._data[account, region, group]["streams"][stream[0]] = {**head, "events": items}


def _metric_points(module: Any) -> Iterator[tuple[list[Any], Any, list[Any]]]:
    for (account, region, (namespace, name, dimensions)), points in list(module._metrics._data.items()):
        yield [account, region, namespace, name, dimensions], None, points


def _restore_metric_points(module: Any, path: list[Any], head: Any, items: list[Any]) -> None:
    account, region, namespace, name, dimensions = path
    module._metrics._data[account, region, (namespace, name, _tuples(dimensions))] = items


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


_GROWING = {
    # "log_records", the pointers that Logs Insights hands out, are left to end with the server.
    "cloudwatch_logs": _Growing(
        keys=(
            *("destinations", "resource_policies", "log_group_policies", "metric_filters", "queries"),
            *("delivery_sources", "delivery_destinations", "deliveries"),
        ),
        series=_log_streams,
        restore=_restore_log_stream,
    ),
    "cloudwatch": _Growing(
        keys=("alarms", "composite_alarms", "composite_triggers", "alarm_history", "dashboards", "resource_tags"),
        series=_metric_points,
        restore=_restore_metric_points,
    ),
}


class Durability:
    """Writes MiniStack's state as it changes and reads it back.

    Parameters
    ----------
    path
        The database.
    """

    def __init__(self, path: Path) -> None:
        self._database = StateDatabase(path)
        self._digests: dict[str, bytes] = {}
        self._changed = False
        self._orphaned_code: tuple[Callable[[set[str]], None], set[str]] | None = None
        self._task: asyncio.Task[None] | None = None

    def install(self) -> None:
        """Save what a request changed before it is answered."""
        from ministack import app
        from ministack.services import lambda_svc, s3

        s3._atomic_write = _noting_failures(s3._atomic_write)
        s3._persist_object = _noting_what_is_left(s3._persist_object)
        for service, handler in list(app.SERVICE_HANDLERS.items()):
            module = app.SERVICE_REGISTRY.get(service, {}).get("module")
            if module is not None:
                app.SERVICE_HANDLERS[service] = self._saving(service, module, handler)
        app._handle_special_data_plane_request = self._saving_special(app._handle_special_data_plane_request)

        # Code of a function that nothing refers to any more may go once that is what the database says, not before.
        prune = lambda_svc._prune_orphan_code_blobs
        lambda_svc._prune_orphan_code_blobs = lambda referenced: setattr(self, "_orphaned_code", (prune, referenced))

    def restore(self, adapt: Callable[[str], str]) -> None:
        """Read back what was saved, before the first request.

        Parameters
        ----------
        adapt
            Changes the text of a snapshot where it speaks of the server that wrote it.
        """
        from ministack import app
        from ministack.core.persistence import _json_object_hook

        for name, body in self._database.snapshots():
            app._get_module(name).load_persisted_state(json.loads(adapt(body), object_hook=_json_object_hook))
        for name, growing in _GROWING.items():
            for path, head, items in self._database.series(name):
                growing.restore(app._get_module(name), path, head, items)

    def start(self) -> None:
        """Save in the background what changes there; call it on the event loop."""
        self._task = asyncio.create_task(self._save_in_background())

    def close(self) -> None:
        """Save what is left and let go of the database."""
        if self._task is not None:
            self._task.cancel()
        self.save()
        self._database.close()

    def note_change(self) -> None:
        """Something changes outside of a request to MiniStack: look at it soon."""
        self._changed = True

    def save(self, names: Iterable[str] | None = None) -> None:
        """Write what changed, in one transaction.

        Parameters
        ----------
        names
            Modules to look at, all that are loaded by default.
        """
        if names is None:
            # What goes on while this is written has to be written once more when it is over.
            self._changed = _stack_in_progress()
            names = _loaded_modules()
        names = list(names)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._database.transaction():
                    for name in names:
                        self._save_module(name)
                break
            except BaseException as error:
                self._digests.clear()
                # Threads of MiniStack changed a dictionary while it was read.
                if not isinstance(error, RuntimeError) or attempt == _ATTEMPTS:
                    self._changed = True
                    raise
        if self._orphaned_code is not None:
            prune, referenced = self._orphaned_code
            self._orphaned_code = None
            prune(referenced)

    def _saving(self, service: str, module: str, handler: Handler) -> Handler:
        async def handle(method: str, path: str, headers: Any, body: bytes, query: Any) -> Any:
            with _unwritten_files() as unwritten:
                response = await handler(method, path, headers, body, query)
            try:
                if unwritten:
                    raise unwritten[0]
                self._after_request(module, path, _reads(service, method, path, headers, body, query))
            except (sqlite3.OperationalError, OSError) as error:
                return _not_saved(error, headers)
            return response

        return handle

    def _saving_special(self, handler: Handler) -> Handler:
        """For what does not pass MiniStack's dispatcher: function URLs, and S3 when the host names the bucket."""
        from ministack import app

        async def handle(method: str, path: str, headers: Any, *args: Any, **kwargs: Any) -> Any:
            with _unwritten_files() as unwritten:
                response = await handler(method, path, headers, *args, **kwargs)
            if response is None:
                return None
            self.note_change()
            try:
                if unwritten:
                    raise unwritten[0]
                if method not in _READING_METHODS and app._parse_lambda_url(headers.get("host", ""), path) is None:
                    self.save()
            except (sqlite3.OperationalError, OSError) as error:
                return _not_saved(error, headers)
            return response

        return handle

    def _after_request(self, module: str, path: str, reads: bool) -> None:
        if module == "lambda_svc" and path.endswith("/invocations"):
            self.note_change()  # log lines and metrics, which AWS does not acknowledge either
            return
        if module == "cloudformation":
            if self._changed or not reads:
                self.save()
        elif not reads:
            self.note_change()
            self.save([module] if module in _SELF_CONTAINED else None)

    async def _save_in_background(self) -> None:
        pause = _BACKGROUND_SECONDS
        failing = False
        while True:
            await asyncio.sleep(pause)
            if not self._changed:
                continue
            started = time.perf_counter()
            try:
                self.save()
                failing = False
            except Exception:
                if not failing:  # what fills the disk is not to be a log that says that it is full
                    logger.exception("the state of the local AWS could not be saved; trying again")
                failing = True
            pause = max(_BACKGROUND_SECONDS, (time.perf_counter() - started) / _BACKGROUND_SHARE)

    def _save_module(self, name: str) -> None:
        from ministack import app

        module = app._get_module(name)
        growing = _GROWING.get(name)
        state = {key: getattr(module, f"_{key}") for key in growing.keys} if growing else module.get_state()
        if state is not None and self._differs(name, body := _encode(state)):
            self._database.put_snapshot(name, body)
        if growing is not None:
            self._database.put_series(name, growing.series(module))

    def _differs(self, name: str, body: str) -> bool:
        digest = hashlib.blake2b(body.encode()).digest()
        if self._digests.get(name) == digest:
            return False
        self._digests[name] = digest
        return True


#: The errors of files that MiniStack's S3 could not write during the current request: it answers 200 all the same.
_unwritten: ContextVar[list[OSError] | None] = ContextVar("unwritten", default=None)


@contextlib.contextmanager
def _unwritten_files() -> Iterator[list[OSError]]:
    """What could not be written within."""
    errors: list[OSError] = []
    token = _unwritten.set(errors)
    try:
        yield errors
    finally:
        _unwritten.reset(token)


def _noting_failures(write: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(write)
    def write_and_note(*args: Any, **kwargs: Any) -> None:
        try:
            write(*args, **kwargs)
        except OSError as error:
            _note(error)
            raise

    return write_and_note


def _noting_what_is_left(persist: Callable[..., None]) -> Callable[..., None]:
    """An object's body is let go of once it is in its file, and kept when not even its folder could be made."""

    @functools.wraps(persist)
    def persist_and_note(bucket: str, key: str, obj: Any) -> None:
        persist(bucket, key, obj)
        if isinstance(obj, dict) and obj.get("body") is not None:
            _note(OSError(f"s3://{bucket}/{key} could not be written"))

    return persist_and_note


def _note(error: OSError) -> None:
    if (errors := _unwritten.get()) is not None:
        errors.append(error)


def _not_saved(error: Exception, headers: Any) -> Any:
    """The answer to a request whose outcome would be lost when the server ends."""
    from ministack.core.responses import error_response_json, error_response_xml

    message = f"The local AWS cannot save this ({error}): make room on the disk of its state folder and try again."
    logger.error("%s", message)
    if headers.get("x-amz-target") or "json" in headers.get("content-type", ""):
        return error_response_json("InternalFailure", message, 500)
    return error_response_xml("InternalError", message, 500)


def _reads(service: str, method: str, path: str, headers: Any, body: bytes, query: Any) -> bool:
    """Whether a request only reads; a request of an unknown form does not."""
    from ministack import app

    parameters = app._routing_params(method, path, headers, body, query)
    _, _, operation = operations.action(service, method, path, headers, parameters, lambda *_: None).partition(":")
    return operation.startswith(_READS) if operation else method in _READING_METHODS


def _stack_in_progress() -> bool:
    cloudformation = sys.modules.get("ministack.services.cloudformation")
    if cloudformation is None:
        return False
    return any(s.get("StackStatus", "").endswith("_IN_PROGRESS") for s in list(cloudformation._stacks._data.values()))


def _loaded_modules() -> list[str]:
    from ministack import app

    names = dict.fromkeys(app._state_map.values())
    return [name for name in names if hasattr(sys.modules.get(f"ministack.services.{name}"), "load_persisted_state")]


def _encode(state: Any) -> str:
    """The state as MiniStack writes it."""
    from ministack.core.persistence import _json_default

    return json.dumps(state, default=_json_default, separators=(",", ":"))
