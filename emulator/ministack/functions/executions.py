"""Every execution of a function: its environment, the limit that throttles it, the metrics that Lambda has of it."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ministack.core import lambda_runtime
from ministack.services import lambda_svc

from emulator.ministack.functions.provisioned import Provisioned, Scope, provisioned_in
from emulator.ministack.patching import around

#: Put a value of a metric: region, namespace, name, dimensions, value, unit.
Record = Callable[[str, str, str, Mapping[str, str], float, str], None]

_NAMESPACE = "AWS/Lambda"
_UNITS = {"Duration": "Milliseconds", "ProvisionedConcurrencyUtilization": "None"}
#: How long the environment of the execution at hand took to initialise, which is no part of its duration.
_initialising = threading.local()
#: Environments that start at a time. They share the processors with everything else here: hundreds at once, which AWS
#: starts in a moment, would slow each other and all servers down, so that ever more were wanted.
_STARTS = os.cpu_count() or 1
#: Lambda's limit for a start. An execution waits no longer for others: they may be waiting for it, such as by a call.
_START_SECONDS = 10.0


@dataclass
class _Execution:
    scope: Scope
    qualifier: str
    unreserved: bool
    worker: Any | None  # of provisioned concurrency


_current: ContextVar[_Execution | None] = ContextVar("execution", default=None)


class Executions:
    """What runs at the moment, by function and in all.

    `unreserved` counts the concurrency of the account that nobody has reserved or provisioned.
    """

    def __init__(self, record: Record, warm: Provisioned, unreserved: Callable[[], int]) -> None:
        self._record = record
        self._warm = warm
        self._unreserved = unreserved
        self._lock = threading.Lock()
        self._running: Counter[Any] = Counter()
        self._on_demand: Counter[Any] = Counter()
        self._starting: set[Any] = set()
        self._freed = threading.Condition()

    def install(self) -> None:
        """Take the place of MiniStack's accounting, and of the metrics that it publishes call by call."""
        lambda_svc._emit_lambda_metrics = lambda *args, **options: None
        lambda_svc._throttle_response = _throttled
        lambda_svc._acquire_execution_slot = self._begin
        lambda_svc._release_execution_slot = self._end
        around(lambda_svc, "_execute_function_dispatch", self._run)
        around(lambda_svc, "acquire_worker", self._environment)
        around(lambda_svc, "release_worker", self._free)
        around(lambda_svc, "_get_func_record_for_ref", _qualified)
        for worker in (lambda_runtime.Worker, lambda_runtime.ProvidedWorker):
            worker._spawn = self._timed(worker._spawn)

    def _begin(self, func: Any, config: dict[str, Any]) -> tuple[_Execution | None, str | None]:
        """Find an environment for an execution, or the limit that leaves it none: "function" or "account"."""
        region, account, _, name, *rest = config["FunctionArn"].split(":")[3:]
        scope, qualifier = (account, region, name), "".join(rest)
        function = lambda_svc._functions.get_scoped(*scope) or {}
        worker, used, provisioned = self._warm.lease(scope, qualifier, config.get("Version", "$LATEST"))
        execution = _Execution(scope, qualifier, function.get("concurrency") is None, worker)
        with self._lock:
            limit = None if worker else self._reached(execution, function)
            if limit is None:
                self._count(execution, 1)
            running = [self._running[place] for place in _places(execution)]
        if limit is not None:
            self._publish(execution, config, Throttles=1)
            return None, limit
        for dimensions, number in zip(_dimensions(execution), running, strict=True):
            self._record(region, _NAMESPACE, "ConcurrentExecutions", dimensions, number, "Count")
        if provisioned:  # AWS publishes these only while somebody calls, too
            kind = "ProvisionedConcurrency" + ("Invocations" if worker else "SpilloverInvocations")
            in_use = {"ProvisionedConcurrentExecutions": used, "ProvisionedConcurrencyUtilization": used / provisioned}
            self._publish(execution, config, **{kind: 1}, **in_use)
        _current.set(execution)
        return execution, None

    def _end(self, execution: _Execution) -> None:
        with self._lock:
            self._count(execution, -1)
        if execution.worker is not None:
            self._warm.release(execution.worker)
        _current.set(None)

    def _count(self, execution: _Execution, change: int) -> None:
        for place in _places(execution):
            self._running[place] += change
        if execution.worker is None:
            self._on_demand[execution.scope if not execution.unreserved else execution.scope[:2]] += change

    def _reached(self, execution: _Execution, function: dict[str, Any]) -> str | None:
        """Return the limit that an execution on demand runs into; what is provisioned is set aside from all of them."""
        if not execution.unreserved:
            left = int(function["concurrency"]) - provisioned_in(function) - self._on_demand[execution.scope]
            return "function" if left <= 0 else None
        cap, everywhere = lambda_svc._ACCOUNT_CONCURRENCY_CAP, execution.scope[:2]
        full = cap and self._running[everywhere] >= cap
        return "account" if full or self._on_demand[everywhere] >= self._unreserved() else None

    def _run(self, inner: Callable[..., Any], func: Any, config: dict[str, Any], *args: Any) -> Any:
        _initialising.seconds = 0.0
        started = time.perf_counter()
        result = inner(func, config, *args)
        milliseconds = (time.perf_counter() - started - _initialising.seconds) * 1000
        if (execution := _current.get()) is not None:
            errors = int(bool(result.get("error")))
            self._publish(execution, config, Invocations=1, Errors=errors, Duration=milliseconds)
        return result

    def _environment(self, inner: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Give an execution the worker that it has leased, or one on demand: whichever is free or may start first."""
        execution = _current.get()
        if execution is not None and execution.worker:
            return execution.worker, "reused"
        began = time.perf_counter()
        with self._freed:
            worker, how = inner(*args, **options, max_concurrency=1)  # one that is free, or the first of all
            while worker is None and len(self._starting) >= _STARTS and time.perf_counter() - began < _START_SECONDS:
                self._freed.wait(_START_SECONDS)
                worker, how = inner(*args, **options, max_concurrency=1)
            if worker is None:
                worker, how = inner(*args, **options)
            if how == "spawn":
                self._starting.add(worker)
        _initialising.seconds = time.perf_counter() - began
        return worker, how

    def _free(self, inner: Callable[..., None], worker: Any) -> None:
        inner(worker)
        self._has_started(worker)

    def _has_started(self, worker: Any) -> None:
        with self._freed:
            self._starting.discard(worker)
            self._freed.notify_all()

    def _timed(self, spawn: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(spawn)
        def timed(worker: Any, *args: Any, **options: Any) -> None:
            started = time.perf_counter()
            try:
                spawn(worker, *args, **options)
            finally:
                _initialising.seconds = getattr(_initialising, "seconds", 0.0) + time.perf_counter() - started
                self._has_started(worker)

        return timed

    def _publish(self, execution: _Execution, config: dict[str, Any], **values: float) -> None:
        for dimensions in _dimensions(execution, config.get("Version", "$LATEST")):
            for name, value in values.items():
                self._record(execution.scope[1], _NAMESPACE, name, dimensions, value, _UNITS.get(name, "Count"))


def _places(execution: _Execution) -> tuple[Any, ...]:
    """Return where an execution counts: in the account, in the function, and in its alias or version."""
    return execution.scope[:2], execution.scope, (execution.scope, execution.qualifier)


def _dimensions(execution: _Execution, version: str | None = None) -> list[dict[str, str]]:
    """Return the sets of dimensions under which Lambda publishes: all functions, function, resource, executed version.

    Source: AWS Lambda Developer Guide, "Viewing metrics for functions"; the executed version is that of an alias.
    """
    name, qualifier = execution.scope[2], execution.qualifier
    of_function = {"FunctionName": name}
    of_resource = {**of_function, "Resource": f"{name}:{qualifier}" if qualifier else name}
    executed = [{**of_resource, "ExecutedVersion": version}] if version and qualifier not in ("", version) else []
    return [{}, of_function, of_resource, *executed]


def _qualified(inner: Callable[..., Any], reference: str) -> Any:
    """Let a function know under which alias or version it is called, as `invoked_function_arn` says it on AWS."""
    record, config, name = inner(reference)
    _, qualifier = lambda_svc._resolve_name_and_qualifier(reference)
    if config and qualifier:
        function = ":".join(config["FunctionArn"].split(":")[:7])
        config = {**config, "FunctionArn": f"{function}:{qualifier}"}
    return record, config, name


def _throttled(reason_code: str, msg: str, retry_after: int = 1) -> dict[str, Any]:
    """Return the result of an execution that a limit refuses, with AWS's text and without a time to wait."""
    body = {"Reason": reason_code, "Type": "User", "message": "Rate Exceeded."}
    return {"throttle": True, "error": True, "log": "", "body": body}
