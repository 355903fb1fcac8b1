"""Nothing that was acknowledged is lost when the server is killed.

MiniStack keeps its state in memory and saves it when it shuts down. Here, the state of a service is written to a
database before the response to a request that changed it goes out. What changes in the background (a stack being
deployed, the log lines of a function) follows within a fraction of a second, and always before a request to
CloudFormation is answered: "CREATE_COMPLETE" acknowledges all that the stack made. Objects of S3 are files of their
own, which MiniStack writes at once.

The database survives the death of the process, not that of the machine: it is not synced to the disk at each commit.
A request whose outcome cannot be written, because the disk is full, gets status 500.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from emulator.ministack.door import operations
from emulator.ministack.state import series
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
#: Files that MiniStack's S3 could not write or read during the current request.
_failures: ContextVar[list[OSError] | None] = ContextVar("failures", default=None)


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
        self._prune: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None

    def install(self) -> None:
        """Save what a request changed before it is answered."""
        from ministack import app
        from ministack.services import lambda_svc

        logging.getLogger("s3").addHandler(_FileFailures())
        for service, handler in list(app.SERVICE_HANDLERS.items()):
            module = app.SERVICE_REGISTRY.get(service, {}).get("module")
            if module is not None:
                app.SERVICE_HANDLERS[service] = self._saving(service, module, handler)
        app._handle_special_data_plane_request = self._saving_special(app._handle_special_data_plane_request)

        # Code of a function that nothing refers to any more may go once that is what the database says, not before.
        prune = lambda_svc._prune_orphan_code_blobs
        lambda_svc._prune_orphan_code_blobs = lambda referenced: setattr(self, "_prune", lambda: prune(referenced))

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
        for name, growing in series.GROWING.items():
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
        if self._prune is not None:
            self._prune()
            self._prune = None

    def _saving(self, service: str, module: str, handler: Handler) -> Handler:
        from ministack.services import s3

        def save(method: str, path: str, headers: Any, body: bytes, query: Any) -> None:
            if module == "lambda_svc" and path.endswith("/invocations"):
                self.note_change()  # log lines and metrics, which AWS does not acknowledge either
            elif module == "s3" and (bucket := _bucket_of_object(path)):
                if bucket in s3._bucket_notifications:
                    self.note_change()  # the object is a file; those who are told of it are not
            elif module == "cloudformation":
                if self._changed or not _reads(service, method, path, headers, body, query):
                    self.save()
            elif not _reads(service, method, path, headers, body, query):
                self.note_change()
                self.save([module] if module in _SELF_CONTAINED else None)

        return _checked(handler, save)

    def _saving_special(self, handler: Handler) -> Handler:
        """For what does not pass MiniStack's dispatcher: function URLs, and S3 when the host names the bucket."""
        from ministack import app

        def save(method: str, path: str, headers: Any, *_: Any) -> None:
            self.note_change()
            if method not in _READING_METHODS and app._parse_lambda_url(headers.get("host", ""), path) is None:
                self.save()

        return _checked(handler, save)

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
        from ministack.core.persistence import _json_default

        module = app._get_module(name)
        growing = series.GROWING.get(name)
        state = {key: getattr(module, f"_{key}") for key in growing.keys} if growing else module.get_state()
        if state is not None:
            body = json.dumps(state, default=_json_default, separators=(",", ":"))
            digest = hashlib.blake2b(body.encode()).digest()
            if self._digests.get(name) != digest:
                self._digests[name] = digest
                self._database.put_snapshot(name, body)
        if growing is not None:
            self._database.put_series(name, growing.series(module))


def _checked(handler: Handler, save: Callable[..., None]) -> Handler:
    """A handler whose response says so when what the request changed could not be saved."""

    async def handle(method: str, path: str, headers: Any, body: bytes, query: Any, *rest: Any, **options: Any) -> Any:
        with _failed_files() as failures:
            response = await handler(method, path, headers, body, query, *rest, **options)
        if response is None:
            return None
        try:
            if failures:
                raise failures[0]
            save(method, path, headers, body, query)
        except (sqlite3.OperationalError, OSError) as error:
            return _not_saved(error, headers)
        return response

    return handle


class _FileFailures(logging.Handler):
    """Notes files that could not be written or read: MiniStack's S3 logs the error and answers 200 all the same."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.args[-1] if isinstance(record.args, tuple) and record.args else None
        if isinstance(error, OSError) and (failures := _failures.get()) is not None:
            failures.append(error)


@contextlib.contextmanager
def _failed_files() -> Iterator[list[OSError]]:
    """The files that fail within."""
    failures: list[OSError] = []
    token = _failures.set(failures)
    try:
        yield failures
    finally:
        _failures.reset(token)


def _not_saved(error: Exception, headers: Any) -> Any:
    """The response to a request whose outcome would be lost when the server ends."""
    from ministack.core.responses import error_response_json, error_response_xml

    message = f"The local AWS cannot save this ({error}): make room on the disk of its state folder and try again."
    logger.error("%s", message)
    if headers.get("x-amz-target") or "json" in headers.get("content-type", ""):
        return error_response_json("InternalFailure", message, 500)
    return error_response_xml("InternalError", message, 500)


def _bucket_of_object(path: str) -> str | None:
    """The bucket that exists and whose object a path names."""
    from ministack.services import s3

    bucket, _, key = path[1:].partition("/")
    return bucket if key and bucket in s3._buckets else None


def _reads(service: str, method: str, path: str, headers: Any, body: bytes, query: Any) -> bool:
    """Whether a request only reads; a request of an unknown form does not."""
    from ministack import app

    parameters = app._routing_params(method, path, headers, body, query)
    _, _, operation = operations.action(service, method, path, headers, parameters).partition(":")
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
