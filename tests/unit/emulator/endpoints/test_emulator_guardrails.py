"""Deployment guardrails: who answers while traffic is shifted, and what brings it back."""

from __future__ import annotations

import contextlib
import functools
import math
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import CALLER, IMAGE, ROLE, make_host, refusal
from fake_monitoring import FakeMonitoring
from hypothesis import given, settings
from hypothesis import strategies as st
from served_fleets import Server, fleet, variant
from waiting import wait_until

from emulator.platform.awsapi import Payload
from emulator.platform.store import Store
from emulator.sagemaker.endpoints import guardrails
from emulator.sagemaker.endpoints.fleet import INVOCATION_SECONDS, Fleet, FleetError
from emulator.sagemaker.endpoints.guardrails import Plan, Shift
from emulator.sagemaker.endpoints.operations import Endpoints
from emulator.sagemaker.resources import ENDPOINT, ENDPOINT_CONFIG, MODEL, Resources

REGION = "eu-west-1"
KEY = REGION, "dogs"


def config(kind: str = "ALL_AT_ONCE", value: int = 0, unit: str = "CAPACITY_PERCENT", **policy: Any) -> Payload:
    """A DeploymentConfig that waits for a second after each step and goes by the alarm ``errors``."""
    routing: Payload = {"Type": kind, "WaitIntervalInSeconds": 1}
    if value:
        routing["CanarySize" if kind == "CANARY" else "LinearStepSize"] = {"Type": unit, "Value": value}
    return {
        "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 1, **policy},
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "errors"}]},
    }


@pytest.mark.parametrize(
    ("given_", "count", "active"),
    [
        (config(), 3, [3]),
        (config("CANARY", 30), 4, [1, 4]),
        (config("CANARY", 2, "INSTANCE_COUNT"), 5, [2, 5]),
        (config("LINEAR", 33), 10, [3, 6, 9, 10]),
        (config("LINEAR", 50), 3, [1, 3]),
        (config("LINEAR", 2, "INSTANCE_COUNT"), 5, [2, 4, 5]),
        ({}, 2, [2]),
    ],
)
def test_traffic_is_turned_on_by_whole_instances(given_: Payload, count: int, active: list[int]) -> None:
    shares = [share for share, _ in Plan.of(given_, {"A": count}).steps]
    assert shares == [n / count for n in active]


@pytest.mark.parametrize(
    ("given_", "count", "named"),
    [
        (config("CANARY"), 4, "CanarySize"),
        (config("CANARY", 51), 4, "50%"),
        (config("CANARY", 10), 1, "ALL_AT_ONCE"),
        (config("CANARY", 3, "INSTANCE_COUNT"), 4, "50%"),
        (config("LINEAR", 9), 4, "10-50%"),
        (config("LINEAR", 10, MaximumExecutionTimeoutInSeconds=10), 10, "MaximumExecutionTimeoutInSeconds"),
    ],
)
def test_what_sagemaker_would_not_follow_is_refused(given_: Payload, count: int, named: str) -> None:
    assert named in refusal(lambda: guardrails.check(given_, {"A": count})).message
    guardrails.check(config("CANARY", 50), {"A": 2}, {"A": 5})
    assert "before: B" in refusal(lambda: guardrails.check(config(), {"A": 2}, {"B": 2})).message


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["CANARY", "LINEAR", "ALL_AT_ONCE"]),
    size=st.integers(10, 50),
    counts=st.tuples(st.integers(1, 6), st.integers(2, 6)),
    rings_at=st.none() | st.integers(0, 5),
)
def test_the_models_answer_by_their_shares_and_after_an_alarm_only_the_old_one(
    kind: str, size: int, counts: tuple[int, int], rings_at: int | None
) -> None:
    plan = Plan.of(config(kind, size if kind != "ALL_AT_ONCE" else 0), {"A": counts[1]})
    monitoring = FakeMonitoring()
    monitoring.put_alarm(REGION, {"AlarmName": "errors"})
    old, new = (fleet(variant("A", *[1] * count)) for count in counts)
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Store(Path(folder))) as store:
        host = make_host(Path(folder), monitoring=monitoring, clock=60)
        endpoints = Endpoints(host, store)
        shift = endpoints._shifts[KEY] = Shift(host, old, new, plan, time.time(), threading.Event())
        endpoints._fleets[KEY] = old

        def of_the_new() -> int:
            """How many of 400 requests the new fleet takes; one that its fleet cannot take goes to the other one."""
            taking = list[Fleet | None]()
            for _ in range(400):
                found = endpoints.fleet(*KEY)
                if found is not None and found.variants["A"].pick(()) is None:
                    found = endpoints.fleet(*KEY, avoid=found)
                assert found is not None and found.variants["A"].pick(())
                taking.append(found)
            return taking.count(new)

        def activate(which: Fleet, share: float) -> None:
            Fleet.activate(which, share)
            of_the_new()  # at any time, all are taken

        def give(share: float) -> None:
            Shift.give(shift, share)
            assert abs(of_the_new() - 400 * share) <= 6 * math.sqrt(400 * share * (1 - share))
            serving = {new.variants["A"].pick(()) for _ in range(200)} - {None}
            assert len(serving) == round(share * counts[1])
            if rings_at is not None and share == plan.steps[rings_at % len(plan.steps)][0]:
                monitoring.states[REGION, "errors"] = "ALARM"

        shift.give = give  # type: ignore[method-assign]
        for each in (old, new):
            each.activate = functools.partial(activate, each)  # type: ignore[method-assign]
        problem = shift.run(0, lambda step: None)
        assert (rings_at is not None) == ("errors" in (problem or ""))
        if problem is not None:
            give(0.0)


class Bench:
    """An endpoint of two instances without processes; its update bakes at its last step until the alarm rings."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.store, self.monitoring = folder, Store(folder), FakeMonitoring()
        self.monitoring.put_alarm(REGION, {"AlarmName": "errors"})
        Resources(self.store, MODEL).create(
            CALLER, {"ModelName": "m", "PrimaryContainer": {"Image": IMAGE}, "ExecutionRoleArn": ROLE}
        )
        own = {"InitialVariantWeight": 1.0, "InitialInstanceCount": 2, "InstanceType": "ml.m5.large", "ModelName": "m"}
        for name in ("old", "new"):
            request = {"EndpointConfigName": name, "ProductionVariants": [{"VariantName": "A", **own}]}
            Resources(self.store, ENDPOINT_CONFIG).create(CALLER, request)

        def start(fleet: Fleet, start_seconds: float = 0.0) -> None:
            fleet.variants["A"].instances = [Server(1), Server(1)]  # type: ignore[list-item]

        monkeypatch.setattr(Fleet, "start", start)
        self.serve(clock=10)
        self.endpoints.create({"EndpointName": "dogs", "EndpointConfigName": "old"}, CALLER)
        self.settled()
        waiting = config("CANARY", 50, TerminationWaitInSeconds=60)
        update = {"EndpointName": "dogs", "EndpointConfigName": "new", "DeploymentConfig": waiting}
        self.endpoints.update(update, CALLER)
        record = Resources(self.store, ENDPOINT).all()[0]["EndpointArn"]
        wait_until(lambda: Resources(self.store, ENDPOINT).require_arn(record)["Deployment"]["Step"] == 1)

    def serve(self, clock: float) -> None:
        self.endpoints = Endpoints(make_host(self.folder, monitoring=self.monitoring, clock=clock), self.store)
        self.endpoints.start()

    def describe(self) -> Payload:
        return self.endpoints.describe({"EndpointName": "dogs"}, CALLER)

    def settled(self) -> Payload:
        return wait_until(lambda: (found := self.describe())["EndpointStatus"] == "InService" and found)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(tmp_path, monkeypatch)
    yield bench
    bench.endpoints.stop()
    bench.store.close()


def test_an_alarm_while_it_bakes_rolls_an_update_back_with_the_reason(bench: Bench) -> None:
    described = bench.describe()
    (pending,) = described["PendingDeploymentSummary"]["ProductionVariants"]
    assert (described["EndpointStatus"], pending["CurrentInstanceCount"]) == ("Updating", 2)
    bench.monitoring.states[REGION, "errors"] = "ALARM"
    described = bench.settled()
    assert (described["EndpointConfigName"], "errors" in described["FailureReason"]) == ("old", True)
    assert "PendingDeploymentSummary" not in described
    assert described["LastDeploymentConfig"]["BlueGreenUpdatePolicy"]
    # A change of capacity that can be neither made nor undone ends, too: no instance of this bench can be started.
    desired = [{"VariantName": "A", "DesiredInstanceCount": 3}]
    change = {"EndpointName": "dogs", "DesiredWeightsAndCapacities": desired}
    bench.endpoints.update_weights_and_capacities(change, CALLER)
    described = bench.settled()
    assert "not in service" in described["FailureReason"]
    assert described["ProductionVariants"][0]["DesiredInstanceCount"] == 2


def test_the_next_server_goes_on_with_the_step_at_which_the_last_one_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.endpoints.stop()
    first = list[int]()
    run = Shift.run
    monkeypatch.setattr(Shift, "run", lambda shift, step, note: (first.append(step), run(shift, step, note))[1])
    bench.serve(clock=60)
    assert (bench.settled()["EndpointConfigName"], first) == ("new", [1])


def test_the_next_server_finishes_a_rollback(bench: Bench) -> None:
    bench.endpoints.stop()
    arn = bench.describe()["EndpointArn"]
    change = {"EndpointStatus": "RollingBack", "FailureReason": "errors"}
    Resources(bench.store, ENDPOINT).change(arn, lambda record: record.update(change))
    bench.serve(clock=1)
    described = bench.settled()
    assert (described["EndpointConfigName"], described["FailureReason"]) == ("old", "errors")


def test_instances_that_came_up_beside_one_that_failed_may_finish() -> None:
    grown, added = variant("A", 1), [Server(1), Server(None)]
    grown._new_instance = iter(added).__next__  # type: ignore[assignment]
    with pytest.raises(FleetError, match="was stopped"):
        grown.resize(3)
    assert ([server.drained for server in added], len(grown.instances)) == ([INVOCATION_SECONDS] * 2, 1)
