"""Provisioned concurrency: execution environments that are initialised before they are called, and stay so.

MiniStack keeps a record of what is asked for. Here, as many workers of the version run: those of an alias are replaced
when it moves, those that die are started again, and after a restart of the server they are all started again.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from ministack.core import lambda_runtime
from ministack.core.responses import get_account_id, get_region, json_response, request_scope
from ministack.services import lambda_svc
from ministack.services.cloudformation import stacks

from emulator.ministack.functions.corrections import wrap_handlers
from emulator.ministack.patching import around
from emulator.platform import settings
from emulator.platform.errors import Response, ServiceError

logger = logging.getLogger(__name__)

#: Account, region and name of a function.
Scope = tuple[str, str, str]
#: A function, the alias or version that has provisioned concurrency, and the version that it stands for.
Key = tuple[Scope, str, str]

_ALIAS = "AWS::Lambda::Alias"
#: As AWS says it: StatusReason, and the event of a stack's alias.
_FAILED = "FUNCTION_ERROR_INIT_FAILURE"
_EVENT = f"Provisioned Concurrency configuration failed to be applied. Reason: {_FAILED}"
_SWEEP_SECONDS = 1.0
#: How long the environments of a version wait for CloudFormation to move the alias to it.
_HELD_SECONDS = 60.0


class Concurrency:
    """What scaling changes of aliases and versions of functions; one that has no provisioned concurrency has 0."""

    noun, service = "desired concurrency", "AWSLambda"

    def read(self, region: str, parts: dict[str, str]) -> tuple[int, bool] | None:
        function, qualifier = parts["Resource"].split(":")
        record = lambda_svc._functions.get_scoped(settings.ACCOUNT, region, function) or {}
        if qualifier not in {**record.get("versions", {}), **record.get("aliases", {})}:
            return None
        config = record.get("provisioned_concurrency", {}).get(qualifier, {})
        return int(config.get("RequestedProvisionedConcurrentExecutions", 0)), config.get("Status") != "IN_PROGRESS"

    def put(self, region: str, parts: dict[str, str], count: int) -> None:
        named = parts["Resource"].split(":")
        with request_scope(settings.ACCOUNT, region):
            if count:
                answer = lambda_svc._put_provisioned_concurrency(*named, {"ProvisionedConcurrentExecutions": count})
            else:
                answer = lambda_svc._delete_provisioned_concurrency(*named)
        if answer[0] >= 400:
            error = json.loads(answer[2])
            raise ServiceError(error["__type"], error.get("message", ""), answer[0])


def provisioned_in(function: dict[str, Any], but: str = "") -> int:
    """Count the environments that a function's versions and aliases keep warm, less those of one."""
    configs: dict[str, dict[str, Any]] = function.get("provisioned_concurrency") or {}
    return sum(int(c["RequestedProvisionedConcurrentExecutions"]) for key, c in configs.items() if key != but)


class Provisioned:
    """The environments of all functions; `changed` is called when a configuration has reached another status."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._pools: dict[Key, list[Any]] = {}
        self._busy: set[Any] = set()
        self._held: dict[Key, float] = {}
        self._lock = threading.Lock()
        self._building = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False

    def install(self) -> None:
        """Stand before what asks for provisioned concurrency and what moves aliases."""
        around(lambda_svc, "_put_provisioned_concurrency", self._put)
        around(lambda_svc, "_update_alias", self._move)
        wrap_handlers(_ALIAS, before=self._prepare)
        blocks = stacks._runs_on_worker_thread
        stacks._runs_on_worker_thread = lambda resource_type: resource_type == _ALIAS or blocks(resource_type)

    def start(self) -> None:
        """Start what earlier servers have been asked for."""
        for _, config in self._wanted():
            if config["Status"] == "READY":
                self._note(config, "IN_PROGRESS", 0)
        threading.Thread(target=self._keep, name="provisioned-concurrency", daemon=True).start()

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()
        with self._building, self._lock:
            lambda_runtime.kill_workers([worker for pool in self._pools.values() for worker in pool])
            self._pools.clear()

    def lease(self, scope: Scope, qualifier: str, version: str) -> tuple[Any | None, int, int]:
        """Return a free environment (None: there is none), how many are in use with it, and how many there are."""
        key = (scope, qualifier, version)
        if key not in self._pools:
            return None, 0, 0
        record = _record(key)
        with self._lock:
            pool = self._pools.get(key, [])
            used = sum(worker in self._busy for worker in pool)
            free = next((worker for worker in pool if worker not in self._busy and _serves(worker, record)), None)
            if free is not None:
                self._busy.add(free)
            return free, used + (free is not None), len(pool)

    def release(self, worker: Any) -> None:
        with self._lock:
            self._busy.discard(worker)
        if not _serves(worker, worker.made_of):
            self._wake.set()

    def _put(self, inner: Callable[..., Response], name: str, qualifier: str, request: Any) -> Response:
        answer = inner(name, qualifier, request)
        if answer[0] >= 400:
            return answer
        return json_response(self._begin(name, qualifier), 202)  # type: ignore[no-any-return]

    def _move(self, inner: Callable[..., Response], name: str, alias: str, request: Any) -> Response:
        answer = inner(name, alias, request)
        if answer[0] < 400 and "FunctionVersion" in request:
            self._begin(name, alias)
        return answer

    def _begin(self, name: str, qualifier: str) -> dict[str, Any] | None:
        """Note how many environments of the present version there are already, and start the others."""
        function: dict[str, Any] = lambda_svc._functions[name]
        config: dict[str, Any] | None = (function.get("provisioned_concurrency") or {}).get(qualifier)
        if config is None:
            return None
        key = ((get_account_id(), get_region(), name), qualifier, version_of(function, qualifier))
        record = _record(key)
        with self._lock:
            there = sum(_serves(worker, record) for worker in self._pools.get(key, []))
        wanted = int(config["RequestedProvisionedConcurrentExecutions"])
        self._note(config, "READY" if there == wanted else "IN_PROGRESS", min(there, wanted))
        self._wake.set()
        return config

    def _note(self, config: dict[str, Any], status: str, there: int) -> None:
        config.pop("StatusReason", None)
        if status == "FAILED":
            config["StatusReason"] = _FAILED
        counts = {f"{what}ProvisionedConcurrentExecutions": there for what in ("Available", "Allocated")}
        config.update(counts, Status=status)
        self._changed()

    def _prepare(self, identity: str, properties: Any) -> None:
        """Initialise a version's environments before the alias of a stack moves to it; until then the old ones serve.

        So does CloudFormation: an alias whose new version does not start stays where it is, and the stack's operation
        fails.
        """
        if not (wanted := properties.get("ProvisionedConcurrencyConfig")):
            return
        name = str(properties["FunctionName"]).rpartition(":function:")[2].partition(":")[0]
        key = ((get_account_id(), get_region(), name), properties["Name"], str(properties["FunctionVersion"]))
        with self._lock:
            self._held[key] = time.monotonic() + _HELD_SECONDS
        if not self._fill(key, int(wanted["ProvisionedConcurrentExecutions"])):
            with self._lock:
                self._held.pop(key, None)
            raise ValueError(_EVENT)

    def _wanted(self) -> list[tuple[Key, dict[str, Any]]]:
        """Return the configurations; one whose alias or version was deleted goes with it."""
        wanted = []
        for scope, function in list(lambda_svc._functions._data.items()):
            configs = function.get("provisioned_concurrency") or {}
            for qualifier, config in list(configs.items()):
                if qualifier in function["aliases"] or qualifier in function["versions"]:
                    wanted.append(((scope, qualifier, version_of(function, qualifier)), config))
                else:
                    configs.pop(qualifier, None)
        return wanted

    def _keep(self) -> None:
        while not self._stopped:
            try:
                self._sweep()
            except Exception:
                logger.exception("provisioned concurrency")
            self._wake.wait(_SWEEP_SECONDS)
            self._wake.clear()

    def _sweep(self) -> None:
        """Have as many environments as are asked for, of the right versions, and no others."""
        asked = [(key, config) for key, config in self._wanted() if config["Status"] != "FAILED"]
        counts = {key: int(config["RequestedProvisionedConcurrentExecutions"]) for key, config in asked}
        self._end_surplus(counts)
        for key, config in asked:
            if not self._fill(key, counts[key]):
                self._note(config, "FAILED", 0)
            elif config["Status"] != "READY":
                self._note(config, "READY", counts[key])

    def _end_surplus(self, counts: dict[Key, int]) -> None:
        surplus = []
        now = time.monotonic()
        with self._building, self._lock:
            self._held = {key: until for key, until in self._held.items() if until > now}
            for key, pool in list(self._pools.items()):
                if key in self._held and key not in counts:
                    continue
                record = _record(key)
                idle = [worker for worker in pool if worker not in self._busy]
                ending = [worker for worker in idle if not _serves(worker, record)]
                more = max(0, len(pool) - len(ending) - counts.get(key, 0))
                ending += [worker for worker in idle if worker not in ending][:more]
                self._pools[key] = [worker for worker in pool if worker not in ending]
                surplus += ending
                if not self._pools[key]:
                    del self._pools[key]
        lambda_runtime.kill_workers(surplus)

    def _fill(self, key: Key, wanted: int) -> bool:
        """Initialise the environments that are missing; False: the function does not start, or is gone."""
        scope, _, version = key
        with self._building:
            while not self._stopped and len(self._pools.get(key, [])) < wanted:
                if (record := _record(key)) is None:
                    return False
                worker = _worker(scope[2], record)
                try:
                    lambda_runtime.ensure_spawned(worker)
                except Exception as error:
                    logger.warning("%s:%s cannot be initialised: %s", scope[2], version, error)
                    lambda_runtime.kill_workers([worker])
                    return False
                with self._lock:
                    self._pools.setdefault(key, []).append(worker)
        return True


def version_of(function: dict[str, Any], qualifier: str) -> str:
    return str(function.get("aliases", {}).get(qualifier, {}).get("FunctionVersion", qualifier))


def _record(key: Key) -> dict[str, Any] | None:
    """Return the version's record: another one, where a function was deleted and made again."""
    scope, _, version = key
    versions: dict[str, Any] = (lambda_svc._functions.get_scoped(*scope) or {}).get("versions") or {}
    return versions.get(version)


def _worker(name: str, record: dict[str, Any]) -> Any:
    config = record["config"]
    variables = (config.get("Environment") or {}).get("Variables") or {}
    told = {"Variables": {**variables, "AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency"}}
    config = {**config, "Environment": told}
    worker = lambda_runtime._worker_class_for(config)(name, config, record["code_zip"])
    worker.made_of = record
    return worker


def _serves(worker: Any, record: dict[str, Any] | None) -> bool:
    process = worker._proc
    return process is not None and process.poll() is None and worker.made_of is record
