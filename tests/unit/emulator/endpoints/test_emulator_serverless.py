"""Serverless variants: what AWS refuses of them, and which environments start, stop and answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
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
from emulator.sagemaker.endpoints.runtime import Runtime
from emulator.sagemaker.endpoints.serverless import MAX_BODY_BYTES, ServerlessVariant
from emulator.sagemaker.serving.http_client import HttpAnswer, ServerFailed


class Environment(served_fleets.Server):
    """An execution environment without a process: it comes up when the bench says so, and answers likewise."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench, self.failure = bench, bench.failure
        self.ready = threading.Event()
        bench.made.append(self)

    def start(self, after_seconds: float = 0.0) -> None:
        if self.bench.up:
            self.come_up()
        elif self.failure:
            self.ready.set()

    def come_up(self) -> None:
        self.pool = self
        self.ready.set()

    def settled(self) -> bool:
        return self.ready.wait(10) and self.failure is None

    async def post(self, path: str, headers: Any, body: bytes, sink: Any) -> HttpAnswer:
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
        return [environment for environment in self.made if environment.drained is None]

    def recorded(self, name: str) -> list[float]:
        points = [point for point in self.monitoring.points if point.name == name]
        assert all(point.dimensions == {"EndpointName": "dogs", "VariantName": "main"} for point in points)
        return [point.value for point in points]

    async def ask(self, count: int, body: bytes = b"x") -> list[Any]:
        return await asyncio.gather(*(self.variant.ask({}, body) for _ in range(count)), return_exceptions=True)

    def ask_one(self, body: bytes = b"x") -> Any:
        return asyncio.run(self.ask(1, body))[0]

    def ask_while(self, count: int, then: Callable[[], Any]) -> Any:
        """Do something while so many invocations are under way, which are answered afterwards."""

        async def main() -> Any:
            self.answers.clear()
            asked = asyncio.ensure_future(self.ask(count))
            await asyncio.sleep(0)
            done = await then()
            self.answers.set()
            assert [answer.body for answer in await asked] == [b"dog"] * count
            return done

        return asyncio.run(main())


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def bench(**config: int) -> Bench:
        made.append(Bench(tmp_path, **config))
        return made[-1]

    yield bench
    for one in made:
        one.variant.stop(drain=False)


@pytest.fixture
def bench(make: Any) -> Bench:
    """A variant whose model was seen to come up once; then nothing runs."""
    made: Bench = make()
    wait_until(lambda: made.alive() == [])
    assert (len(made.made), made.recorded("ModelSetupTime")) == (1, [])
    return made


def test_a_cold_start_is_overhead_and_a_free_environment_is_used_again(bench: Bench) -> None:
    members = {"asynchronous": {}, "variants": {"main": bench.variant}, "choose_variant": lambda _: bench.variant}
    fleet: Any = type("Fleet", (), members)
    runtime = Runtime("1", lambda region, name, avoid=None: fleet(), lambda *_: None)

    async def start() -> None:
        await asyncio.sleep(0.1)
        bench.made[-1].come_up()

    async def main() -> None:
        bench.up = False
        for others in ([start()], []):
            asked = runtime.handle("POST", "/endpoints/dogs/invocations", {}, b"x", {})
            assert (await asyncio.gather(asked, *others))[0][0] == 200

    asyncio.run(main())
    cold, warm = bench.variant.invocations
    assert cold.model_microseconds < 90_000 < cold.overhead_microseconds
    assert warm.overhead_microseconds < 90_000
    assert ([setup >= 90_000 for setup in bench.recorded("ModelSetupTime")], len(bench.made)) == ([True], 2)


def test_invocations_beyond_the_maximum_concurrency_are_throttled(bench: Bench) -> None:
    over = bench.ask_while(3, lambda: bench.ask(2))
    assert {(error.code, error.status) for error in over} == {("ThrottlingException", 400)}
    assert len(bench.alive()) == 3
    assert bench.recorded("ServerlessConcurrentExecutionsUtilization") == [pytest.approx(n / 3) for n in (1, 2, 3)]


def test_beside_what_is_provisioned_or_at_work_nothing_is_up_for_long(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serverless, "_IDLE_SECONDS", 0.1)
    bench = make(ProvisionedConcurrency=2)
    assert len(bench.alive()) == 2
    bench.ask_while(3, lambda: asyncio.sleep(0.3))
    assert len(bench.made) == 3
    wait_until(lambda: len(bench.alive()) == 2)
    by = "ServerlessProvisionedConcurrency"
    assert bench.recorded(f"{by}Utilization") == [0.5, 1, 1]
    assert (bench.recorded(f"{by}Invocations"), bench.recorded(f"{by}SpilloverInvocations")) == ([1, 1], [1])


def test_an_environment_that_cannot_come_up_fails_its_invocation_and_is_gone(bench: Bench) -> None:
    bench.up, bench.failure = False, "exited with code 3"
    error = bench.ask_one()
    assert (type(error), "exited with code 3" in str(error)) == (ServerFailed, True)
    wait_until(lambda: bench.alive() == [])
    bench.variant._proven = False
    with pytest.raises(FleetError, match="did not pass the ping health check"):
        bench.variant.resize(0)


def test_an_environment_that_takes_too_long_is_not_ready_nor_thrown_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.up = False
    monkeypatch.setattr(serverless, "_SETUP_SECONDS", 0.05)
    error = bench.ask_one()
    assert (error.code, error.status) == ("ModelNotReadyException", 429)
    bench.made[-1].come_up()
    assert (bench.ask_one().body, len(bench.made)) == (b"dog", 2)


def test_an_invocation_keeps_the_environment_that_shows_that_the_model_comes_up(bench: Bench) -> None:
    async def main() -> None:
        bench.up = bench.variant._proven = False  # as after a restart of the server
        resized = asyncio.ensure_future(asyncio.to_thread(bench.variant.resize, 0))
        while len(bench.made) < 2:
            await asyncio.sleep(0.001)
        asked = asyncio.ensure_future(bench.ask(1))
        while not bench.made[-1].outstanding:
            await asyncio.sleep(0.001)
        bench.made[-1].come_up()
        await resized
        assert [answer.body for answer in await asked] == [b"dog"]

    asyncio.run(main())
    assert len(bench.made) == 2


def test_payloads_have_four_megabytes_both_ways(bench: Bench) -> None:
    allowed, refused = (bench.ask_one(bytes(MAX_BODY_BYTES + more)) for more in (0, 1))
    assert (allowed.body, refused.status) == (b"dog", 413)
    bench.response = bytes(MAX_BODY_BYTES + 1)
    assert isinstance(bench.ask_one(), ServerFailed)


def test_a_stopped_variant_lets_its_callers_go_on_elsewhere(bench: Bench) -> None:
    async def main() -> None:
        bench.up = False
        waiting = asyncio.ensure_future(bench.ask(1))
        await asyncio.sleep(0)
        await asyncio.to_thread(bench.variant.stop, False)
        assert await waiting == await bench.ask(1) == [None]

    asyncio.run(main())


CONFIG = {"MemorySizeInMB": 2048, "MaxConcurrency": 5}


@pytest.mark.parametrize(
    ("variant", "model", "members", "message"),
    [
        ({}, {"EnableNetworkIsolation": True}, {}, "Network isolation is not supported"),
        ({"InstanceType": "ml.m5.large"}, {}, {"KmsKeyId": "k", "DataCaptureConfig": {}},
         "Not supported for serverless endpoint: DataCaptureConfig, KmsKeyId, InstanceType."),
        ({"ServerlessConfig": {**CONFIG, "MemorySizeInMB": 1500}}, {}, {}, "4096, 5120 or 6144"),
        ({"ServerlessConfig": {**CONFIG, "ProvisionedConcurrency": 6}}, {}, {}, "must not exceed MaxConcurrency (5)"),
    ],
)  # fmt: skip
def test_what_a_serverless_endpoint_cannot_have_is_refused(
    variant: Payload, model: Payload, members: Payload, message: str
) -> None:
    made = {"VariantName": "v", "ModelName": "m", "ServerlessConfig": CONFIG, **variant}
    error = refusal(lambda: serverless.check_config({"ProductionVariants": [made], **members}, [model]))
    assert message in error.message


def fleet_of(count: int, **config: Any) -> Payload:
    return {"Variants": [{**served_fleets.spec("v", count), "Variant": config}]}


def test_capacity_is_fixed_and_a_variant_with_instances_cannot_become_serverless() -> None:
    on_demand, sized = fleet_of(0, ServerlessConfig=CONFIG), fleet_of(2)

    change = [{"VariantName": "v", "DesiredInstanceCount": 2}]
    assert "no DesiredInstanceCount" in refusal(lambda: specs.with_desired(on_demand, change)).message
    assert "cannot convert" in refusal(lambda: specs.check_kind(sized, on_demand)).message
    specs.check_kind(on_demand, sized)
    specs.retain_properties(on_demand, sized, set())
    assert sized["Variants"][0]["InstanceCount"] == 2  # not as many as were provisioned
