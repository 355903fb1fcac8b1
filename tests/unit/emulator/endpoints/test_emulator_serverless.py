"""Serverless variants: what AWS refuses of them, and which environments start, stop and answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import served_fleets
from emulator_fixtures import make_host, refusal
from fake_monitoring import FakeMonitoring
from waiting import wait_until

from emulator.platform.awsapi import Payload
from emulator.sagemaker.endpoints import serverless, specs
from emulator.sagemaker.endpoints.fleet import FleetError
from emulator.sagemaker.endpoints.http_client import HttpAnswer, ServerFailed
from emulator.sagemaker.endpoints.runtime import Runtime
from emulator.sagemaker.endpoints.serverless import MAX_BODY_BYTES, ServerlessVariant


class Environment:
    """An execution environment without a process: it comes up when the bench says so, and answers likewise."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.pool: Environment | None = None
        self.outstanding = self.answered = 0
        self.failure: str | None = None
        self.log: Any = type("Log", (), {"tail": lambda _: ""})()
        self.stopped = False
        bench.made.append(self)

    def start(self) -> None:
        self.pool, self.failure = (self if self.bench.up else None), self.bench.failure

    def come_up(self) -> None:
        self.pool = self

    def settled(self) -> bool:
        return self.failure is None

    def stop(self, drain_seconds: float) -> None:
        self.stopped = True

    async def post(self, path: str, headers: Any, body: bytes) -> HttpAnswer:
        await self.bench.answers.wait()
        return HttpAnswer(200, body=self.bench.response)


class Bench:
    """A serverless variant, in front of environments that are told what to do."""

    def __init__(self, folder: Path, **config: int) -> None:
        self.monitoring = FakeMonitoring()
        self.made: list[Environment] = []
        self.up, self.failure, self.response = True, None, b"dog"
        self.answers = asyncio.Event()
        self.answers.set()
        spec = served_fleets.spec("main", 0) | {"Variant": {"ServerlessConfig": {"MaxConcurrency": 3, **config}}}
        host = make_host(folder, monitoring=self.monitoring)
        self.variant = ServerlessVariant(host, "eu-west-1", spec, folder, "production variant main", "/aws/E/dogs")
        self.variant._new_instance = lambda: Environment(self)  # type: ignore[assignment,return-value]
        self.variant.resize(config.get("ProvisionedConcurrency", 0))

    def alive(self) -> list[Environment]:
        return [environment for environment in self.made if not environment.stopped]

    def recorded(self, name: str) -> list[float]:
        points = [point for point in self.monitoring.points if point.name == name]
        assert all(point.dimensions == {"EndpointName": "dogs", "VariantName": "main"} for point in points)
        return [point.value for point in points]

    async def ask(self, count: int, body: bytes = b"x") -> list[Any]:
        return await asyncio.gather(*(self.variant.ask({}, body) for _ in range(count)), return_exceptions=True)

    async def while_busy(self, count: int, then: Callable[[], Any]) -> Any:
        """Do something while so many invocations are under way."""
        self.answers.clear()
        asked = asyncio.ensure_future(self.ask(count))
        await asyncio.sleep(0)
        done = await then()
        self.answers.set()
        assert [answer.body for answer in await asked] == [b"dog"] * count
        return done


@pytest.fixture
def make(tmp_path: Path) -> Any:
    made: list[Bench] = []

    def bench(**config: int) -> Bench:
        made.append(Bench(tmp_path, **config))
        return made[-1]

    yield bench
    for one in made:
        one.variant.stop(drain=False)


def test_the_model_is_seen_to_come_up_once_and_then_nothing_runs(make: Any) -> None:
    bench = make()
    assert len(bench.made) == 1
    wait_until(lambda: bench.alive() == [])
    assert bench.recorded("ModelSetupTime") == []


def test_a_cold_start_is_measured_and_a_free_environment_is_used_again(make: Any) -> None:
    async def main() -> None:
        bench = make()
        bench.up = False
        cold = asyncio.ensure_future(bench.ask(1))
        await asyncio.sleep(0.05)
        bench.made[-1].come_up()
        (first,), (second,) = await cold, await bench.ask(1)
        assert (first.setup_seconds >= 0.05, second.setup_seconds < 0.05) == (True, True)
        assert len(bench.made) == 2  # with the one that was tried first
        (setup,) = bench.recorded("ModelSetupTime")
        assert setup >= 50_000

    asyncio.run(main())


def test_invocations_beyond_the_maximum_concurrency_are_throttled(make: Any) -> None:
    bench = make()
    over = asyncio.run(bench.while_busy(3, lambda: bench.ask(2)))
    assert {(error.code, error.status) for error in over} == {("ThrottlingException", 400)}
    assert len(bench.made) == 4
    assert bench.recorded("ServerlessConcurrentExecutionsUtilization") == [pytest.approx(n / 3) for n in (1, 2, 3)]


def test_provisioned_environments_are_up_before_they_are_asked_and_the_rest_spills_over(make: Any) -> None:
    bench = make(ProvisionedConcurrency=2)
    assert len(bench.alive()) == 2
    asyncio.run(bench.while_busy(3, lambda: asyncio.sleep(0)))
    by = "ServerlessProvisionedConcurrency"
    assert bench.recorded(f"{by}Utilization") == [0.5, 1, 1]
    assert (bench.recorded(f"{by}Invocations"), bench.recorded(f"{by}SpilloverInvocations")) == ([1, 1], [1])


def test_what_is_idle_stops_after_a_while_but_for_what_is_provisioned_or_at_work(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serverless, "_IDLE_SECONDS", 0.1)
    bench = make(ProvisionedConcurrency=1)

    async def main() -> None:
        await bench.while_busy(2, lambda: asyncio.sleep(0.3))
        assert len(bench.alive()) == 2

    asyncio.run(main())
    wait_until(lambda: len(bench.alive()) == 1)


def test_an_environment_that_cannot_come_up_fails_its_invocation_and_is_gone(make: Any) -> None:
    bench = make()
    bench.up, bench.failure = False, "exited with code 3"
    (error,) = asyncio.run(bench.ask(1))
    assert isinstance(error, ServerFailed)
    assert "exited with code 3" in str(error)
    wait_until(lambda: bench.alive() == [])
    bench.variant._proven = False
    with pytest.raises(FleetError, match="did not pass the ping health check"):
        bench.variant.resize(0)


def test_an_environment_that_takes_too_long_is_not_ready(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make()
    bench.up = False
    monkeypatch.setattr(serverless, "_SETUP_SECONDS", 0.05)
    (error,) = asyncio.run(bench.ask(1))
    assert (error.code, error.status) == ("ModelNotReadyException", 429)
    bench.made[-1].come_up()
    (answer,) = asyncio.run(bench.ask(1))  # it is not thrown away
    assert (answer.body, len(bench.made)) == (b"dog", 2)


def test_payloads_have_four_megabytes_both_ways(make: Any) -> None:
    bench = make()
    allowed, refused = (asyncio.run(bench.ask(1, bytes(MAX_BODY_BYTES + more)))[0] for more in (0, 1))
    assert (allowed.body, refused.status) == (b"dog", 413)
    bench.response = bytes(MAX_BODY_BYTES + 1)
    assert isinstance(asyncio.run(bench.ask(1))[0], ServerFailed)


def test_a_cold_start_is_overhead_and_not_latency_of_the_model(make: Any) -> None:
    async def main() -> None:
        bench = make()
        bench.up = False
        fleet: Any = type("Fleet", (), {"variants": {"main": bench.variant}, "choose_variant": lambda _: bench.variant})
        runtime = Runtime("1", lambda region, name, avoid=None: fleet())
        asked = asyncio.ensure_future(runtime.handle("POST", "/endpoints/dogs/invocations", {}, b"x", {}))
        await asyncio.sleep(0.1)
        bench.made[-1].come_up()
        assert (await asked)[0] == 200
        (invocation,) = bench.variant.invocations
        assert invocation.model_microseconds < 90_000 < invocation.overhead_microseconds

    asyncio.run(main())


def test_a_stopped_variant_lets_its_callers_go_on_elsewhere(make: Any) -> None:
    async def main() -> None:
        bench = make()
        bench.up = False
        waiting = asyncio.ensure_future(bench.ask(1))
        await asyncio.sleep(0)
        threading.Thread(target=bench.variant.stop, args=(False,)).start()
        assert await waiting == [None]
        assert await bench.ask(1) == [None]

    asyncio.run(main())


CONFIG = {"MemorySizeInMB": 2048, "MaxConcurrency": 5}


def refusal_of(variant: Payload, model: Payload, **members: Any) -> str:
    """Why a configuration with a serverless variant is refused."""
    made = {"VariantName": "v", "ModelName": "m", "ServerlessConfig": CONFIG, **variant}
    return refusal(lambda: serverless.check_config({"ProductionVariants": [made], **members}, [model])).message


@pytest.mark.parametrize(
    ("variant", "model", "members", "message"),
    [
        ({}, {"EnableNetworkIsolation": True}, {}, "Network isolation is not supported"),
        ({}, {"VpcConfig": {}}, {}, "VPC configuration is not supported"),
        ({"InstanceType": "ml.m5.large"}, {}, {"KmsKeyId": "k", "DataCaptureConfig": {}},
         "Not supported for serverless endpoint: DataCaptureConfig, KmsKeyId, InstanceType."),
        ({"ServerlessConfig": {**CONFIG, "MemorySizeInMB": 1500}}, {}, {}, "4096, 5120 or 6144"),
        ({"ServerlessConfig": {**CONFIG, "ProvisionedConcurrency": 6}}, {}, {}, "must not exceed MaxConcurrency (5)"),
    ],
)  # fmt: skip
def test_what_a_serverless_endpoint_cannot_have_is_refused(
    variant: Payload, model: Payload, members: Payload, message: str
) -> None:
    assert message in refusal_of(variant, model, **members)


def fleet_of(count: int, **config: Any) -> Payload:
    return {"Variants": [{**served_fleets.spec("v", count), "Variant": config}]}


def test_an_endpoint_with_instances_cannot_become_serverless_but_the_other_way_round() -> None:
    on_demand, sized = fleet_of(0, ServerlessConfig=CONFIG), fleet_of(2)
    assert "cannot convert" in refusal(lambda: specs.check_kind(sized, on_demand)).message
    specs.check_kind(on_demand, sized)
    specs.retain_properties(on_demand, sized, set())
    assert sized["Variants"][0]["InstanceCount"] == 2  # not as many as were provisioned


def test_capacity_is_changed_as_concurrency() -> None:
    def change(spec: Payload, **members: Any) -> Payload:
        (variant,) = specs.with_desired(spec, [{"VariantName": "v", **members}])["Variants"]
        return variant

    on_demand, provisioned = fleet_of(0, ServerlessConfig=CONFIG), {"ProvisionedConcurrency": 4}
    changed = change(on_demand, ServerlessUpdateConfig=provisioned)
    assert (changed["InstanceCount"], changed["Variant"]["ServerlessConfig"]) == (4, {**CONFIG, **provisioned})
    for wrong in ({"DesiredInstanceCount": 2}, {"ServerlessUpdateConfig": {"ProvisionedConcurrency": 6}}):
        assert refusal(lambda wrong=wrong: change(on_demand, **wrong)).code == "ValidationException"
