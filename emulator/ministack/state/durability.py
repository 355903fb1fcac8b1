"""Nothing that was acknowledged is lost when the server is killed.

MiniStack saves its state when it shuts down. Here, the state of a service is in a database before the response to a
request that changed it goes out. What changes in the background (a stack being deployed), log lines and metric points
follow within a fraction of a second, and always before a request to CloudFormation is answered: "CREATE_COMPLETE"
acknowledges all that the stack made. Objects of S3 are files of their own, which MiniStack writes at once.

The database survives the death of the process, not that of the machine: it is not synced to the disk at each commit.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import logging
import sqlite3
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ministack import app
from ministack.core.persistence import _json_default, _json_object_hook
from ministack.core.responses import error_response_json, error_response_xml
from ministack.services import lambda_svc, s3

from emulator.ministack.door import operations
from emulator.ministack.patching import around, around_service
from emulator.ministack.state.series import GROWING

logger = logging.getLogger(__name__)

Handler = Callable[..., Awaitable[Any]]

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS saved (
    module TEXT, path TEXT, start INTEGER, head TEXT, items TEXT, PRIMARY KEY (module, path, start)
);
"""
_READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: Operations that change nothing that has to be kept, by their first word or words.
_READS = (
    *("Get", "List", "Describe", "Head", "BatchGet", "Lookup", "Simulate", "Validate", "Estimate", "Detect"),
    *("Decrypt", "Encrypt", "ReEncrypt", "GenerateDataKey", "GenerateRandom", "Sign", "Verify", "AssumeRole", "Invoke"),
)
#: Operations whose outcome follows in the background: there may be many of them.
_APPENDS = ("PutLogEvents", "PutMetricData")
#: Services whose operations change their own state only; after a call to any other, all that is loaded is looked at.
_SELF_CONTAINED = frozenset(
    {"cloudwatch", "cloudwatch_logs", "dynamodb", "ecr", "iam", "kms", "lambda_svc", "s3", "sns", "sqs", "ssm"}
)
_BACKGROUND_SECONDS = 0.25
#: The background save may take this share of the time.
_BACKGROUND_SHARE = 0.1
_ATTEMPTS = 20
#: Items of a series that are written together, the newest once more with each that comes.
_CHUNK = 50
#: Files that MiniStack's S3 could not write or read during the current request.
_failures: ContextVar[list[OSError] | None] = ContextVar("failures", default=None)


class Durability:
    """Writes MiniStack's state to a database as it changes and reads it back."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._database = sqlite3.connect(path, isolation_level="IMMEDIATE", check_same_thread=False)
        self._database.executescript(_SCHEMA)
        #: For each module, path and start, what tells whether it has changed since it was saved.
        self._saved: dict[str, dict[tuple[str, int], Any]] = {}
        self._changed = False
        self._prune: Callable[[], None] = lambda: None
        self._task: asyncio.Task[None] | None = None

    def install(self) -> None:
        """Save what a request changed before it is answered."""
        logging.getLogger("s3").addHandler(_FileFailures())
        for service in list(app.SERVICE_HANDLERS):
            module = app.SERVICE_REGISTRY.get(service, {}).get("module")
            if module is not None:
                around_service(service, functools.partial(self._handle, service, module))
        around(app, "_handle_special_data_plane_request", self._handle_special)
        around(lambda_svc, "_prune_orphan_code_blobs", self._prune_later)

    def _prune_later(self, inner: Callable[..., None], referenced: Any) -> None:
        """Let code go that no function refers to once that is what the database says, not before."""
        self._prune = functools.partial(inner, referenced)

    def restore(self, adapt: Callable[[str], str]) -> None:
        """Read back what was saved, before the first request; `adapt` changes what speaks of another server."""
        query = "SELECT module, path, start, head, items FROM saved"
        series: list[Any] = []
        for name, path, start, head, text in self._database.execute(
            f"{query} ORDER BY json_array_length(path), 1, 2, 3"
        ):
            module, place, items = app._get_module(name), json.loads(path), json.loads(text)
            self._saved.setdefault(name, {})[path, start] = _mark(head, items)
            if start:
                series.extend(items)
            elif place:
                series = items
                GROWING[name].restore(module, place, json.loads(head), series)
            else:
                module.load_persisted_state(json.loads(adapt(head), object_hook=_json_object_hook))

    def start(self) -> None:
        """Save in the background what changes there; call it on the event loop."""
        self._task = asyncio.create_task(self._save_in_background())

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self.save()
        self._database.close()

    def note_change(self) -> None:
        """Something changes outside of a request to MiniStack: look at it soon."""
        self._changed = True

    def save(self, names: Iterable[str] | None = None) -> None:
        """Write what changed in modules, by default in all that are loaded, in one transaction."""
        if names is None:
            # What goes on while this is written has to be written once more when it is over.
            self._changed = _stack_in_progress()
            names = _loaded_modules()
        names = list(names)
        with self._lock:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    with self._database:
                        saved = {name: self._put(name) for name in names}
                    break
                except BaseException as error:
                    # Threads of MiniStack changed a dictionary while it was read.
                    if not isinstance(error, RuntimeError) or attempt == _ATTEMPTS:
                        self._changed = True
                        raise
            self._saved.update(saved)
            self._prune()
            self._prune = lambda: None

    def _put(self, name: str) -> dict[tuple[str, int], Any]:
        """Write what changed of a module; what tells that it has not changed since."""
        before = self._saved.get(name, {})
        now: dict[tuple[str, int], Any] = {}
        for place, start, value, items in _state(name):
            key, head = (json.dumps(place), start), json.dumps(value, default=_json_default, separators=(",", ":"))
            now[key] = _mark(head, items)
            if now[key] != before.get(key):
                row = (name, *key, head, json.dumps(items))
                self._database.execute("INSERT OR REPLACE INTO saved VALUES (?, ?, ?, ?, ?)", row)
        gone = [(name, *key) for key in before.keys() - now.keys()]
        self._database.executemany("DELETE FROM saved WHERE module = ? AND path = ? AND start = ?", gone)
        return now

    async def _handle(
        self, service: str, module: str, inner: Handler, method: str, path: str, headers: Any, body: bytes, query: Any
    ) -> Any:
        def save() -> None:
            request = (service, method, path, headers, body, query)
            if module == "lambda_svc" and path.endswith("/invocations"):
                self.note_change()  # log lines and metrics, which AWS does not acknowledge either
            elif module == "s3" and _names_object(path):
                pass  # which is a file
            elif module == "cloudformation":
                if self._changed or not _reads(*request):
                    self.save()
            elif module in GROWING and _operation(*request) in _APPENDS:
                self.note_change()
            elif not _reads(*request):
                self.note_change()
                self.save([module] if module in _SELF_CONTAINED else None)

        return await _checked(inner(method, path, headers, body, query), headers, save)

    async def _handle_special(
        self, inner: Handler, method: str, path: str, headers: Any, *rest: Any, **options: Any
    ) -> Any:
        """Answer what does not pass MiniStack's dispatcher, such as function URLs."""

        def save() -> None:
            self.note_change()
            if method not in _READING_METHODS and app._parse_lambda_url(headers.get("host", ""), path) is None:
                self.save()

        return await _checked(inner(method, path, headers, *rest, **options), headers, save)

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


def _mark(head: str, items: list[Any]) -> Any:
    """What tells whether something has changed; items are not, so that what is added or removed shows at the end."""
    return hashlib.blake2b(head.encode()).digest(), len(items), items[-1:]


def _state(name: str) -> Iterator[tuple[list[Any], int, Any, list[Any]]]:
    """The state of a module, and each of its series in chunks: place, start, what else is kept there, and items."""
    module, growing = app._get_module(name), GROWING.get(name)
    state = {key: getattr(module, f"_{key}") for key in growing.keys} if growing else module.get_state()
    if state is not None:
        yield [], 0, state, []
    if growing is not None:
        for place, head, items in growing.series(module):
            yield place, 0, head, items[:_CHUNK]
            for start in range(_CHUNK, len(items), _CHUNK):
                yield place, start, None, items[start : start + _CHUNK]


async def _checked(answering: Awaitable[Any], headers: Any, save: Callable[[], None]) -> Any:
    """The response to a request, which says so when what the request changed could not be saved."""
    failures: list[OSError] = []
    token = _failures.set(failures)
    try:
        response = await answering
    finally:
        _failures.reset(token)
    if response is None:
        return None
    try:
        if failures:
            raise failures[0]
        save()
    except (sqlite3.OperationalError, OSError) as error:
        return _not_saved(error, headers)
    return response


class _FileFailures(logging.Handler):
    """Notes files that could not be written or read: MiniStack's S3 logs the error and answers 200 all the same."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.args[-1] if isinstance(record.args, tuple) and record.args else None
        if isinstance(error, OSError) and (failures := _failures.get()) is not None:
            failures.append(error)


def _not_saved(error: Exception, headers: Any) -> Any:
    """The response to a request whose outcome would be lost when the server ends."""
    message = f"The local AWS cannot save this ({error}): make room on the disk of its state folder and try again."
    logger.error("%s", message)
    if headers.get("x-amz-target") or "json" in headers.get("content-type", ""):
        return error_response_json("InternalFailure", message, 500)
    return error_response_xml("InternalError", message, 500)


def _names_object(path: str) -> bool:
    """Whether a path is that of an object in a bucket that exists."""
    bucket, _, key = path[1:].partition("/")
    return bool(key) and bucket in s3._buckets


def _operation(service: str, method: str, path: str, headers: Any, body: bytes, query: Any) -> str:
    """The operation of a request, empty for a request of an unknown form."""
    parameters = app._routing_params(method, path, headers, body, query)
    return operations.action(service, method, path, headers, parameters).partition(":")[2]


def _reads(service: str, method: str, path: str, headers: Any, body: bytes, query: Any) -> bool:
    """Whether a request only reads; a request of an unknown form does not."""
    operation = _operation(service, method, path, headers, body, query)
    return operation.startswith(_READS) if operation else method in _READING_METHODS


def _stack_in_progress() -> bool:
    cloudformation = sys.modules.get("ministack.services.cloudformation")
    if cloudformation is None:
        return False
    return any(s.get("StackStatus", "").endswith("_IN_PROGRESS") for s in list(cloudformation._stacks._data.values()))


def _loaded_modules() -> list[str]:
    names = dict.fromkeys(app._state_map.values())
    return [name for name in names if hasattr(sys.modules.get(f"ministack.services.{name}"), "load_persisted_state")]
