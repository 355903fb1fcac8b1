"""The server of the local AWS: one process, one port on the loopback address."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from emulator.ministack import configuration
from emulator.platform import settings
from emulator.platform.awsapi import Service
from emulator.platform.clock import Clock
from emulator.platform.conditions import Conditions
from emulator.platform.host import Host
from emulator.platform.processes import ProcessRegistry, reap, start_watchdog
from emulator.platform.running.layout import StateDir, listening
from emulator.quotas.service import Quotas, ServiceQuotas

_KEEP_ALIVE_SECONDS = 75
_GRACE_SECONDS = 3
_BACKLOG = 1024


class LocalAws:
    """Everything behind the port, with its state in a folder that this process holds; one in a process."""

    def __init__(self, place: StateDir, port: int, conditions: Conditions) -> None:
        configuration.check_version()
        own = configuration.variables(place.root, port, place.credentials())
        configuration.apply({**settings.clean_environment(os.environ, place.temporary), **own})

        # Only now: MiniStack reads its environment while it is imported.
        from ministack import app

        from emulator.autoscaling import resources
        from emulator.autoscaling.service import ApplicationAutoScaling
        from emulator.evaluation import evaluator
        from emulator.ministack import identity, instances, limits, routing, scheduled_rules, tagging, usage
        from emulator.ministack.apigateway import control, execution, integrations
        from emulator.ministack.cloudformation import interruptions, resource_types, stack_rights, stack_rules
        from emulator.ministack.cloudwatch import log_events, metric_filters, notifications
        from emulator.ministack.cloudwatch.alarms import CloudWatch
        from emulator.ministack.door import (
            authentication,
            enforcement,
            operations,
            passed_roles,
            principals,
            service_keys,
        )
        from emulator.ministack.functions import corrections, executions, node, provisioned, results
        from emulator.ministack.policies import documents, managed
        from emulator.ministack.s3 import access_logs, bucket_resources, copies, object_files, object_keys
        from emulator.ministack.state import durability
        from emulator.sagemaker import SageMaker

        endpoint_url = f"http://{settings.BIND_HOST}:{port}"
        quotas, clock = Quotas(conditions.quotas), Clock(conditions.clock)
        self._processes = ProcessRegistry(place.processes)
        evaluator.adopt = self._processes.adopt
        self._object_files = object_files.ObjectFiles()
        self._durability = durability.Durability(place.database)
        self._cloudwatch = CloudWatch(settings.ACCOUNT, clock, self._durability.note_change)

        def host_of(service: str) -> Host:
            return Host(
                service,
                endpoint_url,
                place.root,
                place.temporary,
                settings.ACCOUNT,
                self._processes,
                role_credentials=functools.partial(identity.open_session, f"{service}.amazonaws.com"),
                copy_objects=self._object_files.copy,
                monitoring=self._cloudwatch,
                conditions=conditions,
                quotas=quotas,
                clock=clock,
            )

        host = host_of("sagemaker")
        self._sagemaker = SageMaker(host)
        enforcement.install()
        operations.install()
        usage.install(self._durability.note_change)
        capacities: dict[str, resources.Capacity] = {
            resources.INSTANCES: resources.Instances(self._sagemaker, host.account),
            resources.FUNCTION: provisioned.Concurrency(),
        }
        self._scaling = ApplicationAutoScaling(host, capacities)
        services: list[Service] = [self._sagemaker, self._scaling, ServiceQuotas(host.account, quotas)]
        by_name = {service.name: service for service in services}
        routing.install(by_name, self._sagemaker.runtime)
        resource_types.install(by_name, self._durability.save)
        corrections.install(endpoint_url, self._processes, [name for name in own if not name.startswith("AWS_")])
        node.install()
        results.install()
        self._provisioned = provisioned.Provisioned(self._durability.note_change)
        self._provisioned.install()
        executions.Executions(self._cloudwatch.record, self._provisioned, limits.install(quotas)).install()
        self._cloudwatch.install()
        notifications.install()
        log_events.install(clock)
        metric_filters.install(self._cloudwatch.record, clock)
        scheduled_rules.install(clock, self._cloudwatch)
        control.install(endpoint_url)
        integrations.Integrations(self._sagemaker.runtime).install()
        execution.Executions(self._cloudwatch, self._durability.note_change).install()
        stack_rules.install()
        managed.install()
        documents.install()
        tagging.install(host.account, self._sagemaker.tagged)
        interruptions.install()
        self._instances = instances.Instances(host_of("ec2"), self._durability.note_change)
        self._instances.install()
        self._access_logs = access_logs.AccessLogs(conditions.access_log_seconds, self._durability.note_change)
        self._durability.install()
        object_keys.install()
        copies.install()
        self._object_files.install()
        stack_rights.install()
        service_keys.install(self._sagemaker, stack_rights.actor)
        principals.install()
        passed_roles.install()
        self._access_logs.install()
        bucket_resources.install()
        self._durability.restore(lambda text: corrections.moved(text, endpoint_url))
        self.app = authentication.gate(app.app)

    async def start(self) -> None:
        """Take up what the last server was doing; call it once the port answers."""
        from emulator.ministack.cloudformation import interruptions

        self._object_files.start()
        self._instances.start()
        self._cloudwatch.start()
        self._durability.start()
        self._provisioned.start()
        await asyncio.to_thread(self._sagemaker.start)
        self._scaling.start()
        interruptions.recover(self._sagemaker)

    def interrupt(self) -> None:
        """Interrupt what asks other services, before the port is closed to it."""
        self._sagemaker.interrupt()

    async def stop(self) -> None:
        """End every process and save what is left to save; nothing may be asked of it any more."""
        from ministack.core import lambda_runtime

        from emulator.ministack.cloudformation import custom_resources

        self._access_logs.stop()
        ends = (
            self._cloudwatch.stop,
            self._scaling.stop,
            self._sagemaker.stop,
            self._instances.stop,
            self._provisioned.stop,
        )
        for end in (*ends, lambda_runtime.reset, self._processes.close):
            await asyncio.to_thread(end)
        self._durability.close()
        custom_resources.release()  # only now: what comes of it is not of this server's state any more


class _Server(uvicorn.Server):
    """Takes up work once the port answers, since that work calls it, and then tells others where it is."""

    def __init__(self, config: uvicorn.Config, local_aws: LocalAws, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._local_aws = local_aws
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            await self._local_aws.start()
            self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._local_aws.interrupt()
        await super().shutdown(sockets)
        await self._local_aws.stop()


def serve(state_dir: Path, port: int, conditions: Conditions) -> None:
    """Run the local AWS until SIGTERM or SIGINT; a StateError or a ContractError says why it cannot run."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("emulator").setLevel(logging.INFO)
    for number in (signal.SIGTERM, signal.SIGINT):
        # While it serves, uvicorn has handlers of its own; in the end it sends itself the signal once more.
        signal.signal(number, _leave)
    os.umask(0o077)  # what is written here is nobody else's business, whether by us or by MiniStack
    place = StateDir(state_dir)
    with place.locked(), listening(port) as listener, _tidy(place):
        local_aws = LocalAws(place, port, conditions)
        config = uvicorn.Config(
            local_aws.app,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,  # any program here could send some, and policies may ask for the address
            lifespan="on",
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            backlog=_BACKLOG,
        )
        _Server(config, local_aws, lambda: place.announce(port)).run([listener])


def _leave(number: int, frame: object) -> None:
    """End the process in an orderly way: everything that was entered is left."""
    raise SystemExit(0)


@contextlib.contextmanager
def _tidy(place: StateDir) -> Iterator[None]:
    """End what an earlier server left behind, and let nothing be left behind by this one."""
    reap(place.processes)
    place.make_temporary()
    place.processes.mkdir(exist_ok=True)
    watchdog = start_watchdog(place.processes)
    try:
        yield
    finally:
        place.withdraw()
        if watchdog.stdin is not None:
            watchdog.stdin.close()
        watchdog.wait()
