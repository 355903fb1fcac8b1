"""What the cost guard's program stops, and what it leaves alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from programs.cost_guard import cost_guard

ENVIRONMENT = {
    "PROJECT": "kennel",
    "STAGE": "dev",
    "ENDPOINT": "dogs",
    "IDLE_HOURS": "12",
    "IDLE_ENDPOINT": "delete",
    "NOTEBOOK_NAME": "notebook",
    "NOTEBOOK_HOURS": "10",
    "TRAINING_HOURS": "24",
    "TOPIC_ARN": "topic",
}


def ago(hours: float) -> datetime:
    return datetime.now(UTC) - timedelta(hours=hours)


class Account:
    """The clients of all services in one: an endpoint with 3 instances, a notebook and two training instances."""

    def __init__(self, *, deployed: float = 13, calls: float = 0, status: str = "InService") -> None:
        self.stopped: list[str] = []
        self.messages: list[str] = []
        variant = {"VariantName": "main", "DesiredInstanceCount": 3}
        self.endpoint = {
            "EndpointStatus": status, "LastModifiedTime": ago(deployed), "ProductionVariants": [variant],
        }  # fmt: skip
        self.points = [{"Sum": calls}] if calls else []
        self.notebook = {"NotebookInstanceStatus": "InService", "LastModifiedTime": ago(9)}
        self.launched = {"i-old": ago(25), "i-new": ago(23)}
        self.refused: set[str] = set()

    def describe_endpoint(self, **_: Any) -> Any:
        if not self.endpoint:
            message = 'Could not find endpoint "dogs".'
            raise ClientError({"Error": {"Code": "ValidationException", "Message": message}}, "DescribeEndpoint")
        return self.endpoint

    def get_metric_statistics(self, **request: Any) -> Any:
        assert request["EndTime"] - request["StartTime"] == timedelta(hours=12)
        return {"Datapoints": self.points}

    def describe_scalable_targets(self, **_: Any) -> Any:
        return {"ScalableTargets": [{"MinCapacity": 1}]}

    def describe_notebook_instance(self, **_: Any) -> Any:
        return self.notebook

    def get_paginator(self, _: str) -> Any:
        instances = [{"InstanceId": name, "LaunchTime": when} for name, when in self.launched.items()]
        return SimpleNamespace(paginate=lambda **_: [{"Reservations": [{"Instances": instances}]}])

    def delete_endpoint(self, EndpointName: str) -> None:
        self._stop("endpoint")

    def update_endpoint_weights_and_capacities(self, EndpointName: str, DesiredWeightsAndCapacities: Any) -> None:
        self._stop(f"endpoint to {DesiredWeightsAndCapacities[0]['DesiredInstanceCount']}")

    def stop_notebook_instance(self, NotebookInstanceName: str) -> None:
        self._stop("notebook")

    def terminate_instances(self, InstanceIds: list[str]) -> None:
        self._stop(*InstanceIds)

    def publish(self, Message: str, **_: Any) -> None:
        self.messages.append(Message)

    def _stop(self, what: str) -> None:
        if what in self.refused:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": f"no {what}"}}, "Stop")
        self.stopped.append(what)


def run(monkeypatch: pytest.MonkeyPatch, account: Account, **environment: str) -> dict[str, Any]:
    monkeypatch.setattr(cost_guard.boto3, "client", lambda _: account)
    for name, value in {**ENVIRONMENT, **environment}.items():
        monkeypatch.setenv(name, value)
    return cost_guard.handler({}, None)


@pytest.mark.parametrize(
    ("account", "stops"),
    [
        ({}, True),
        ({"status": "Failed"}, True),
        ({"calls": 1}, False),
        ({"deployed": 11}, False),  # a deployment counts as a use
        ({"status": "Updating"}, False),
    ],
)
@pytest.mark.parametrize(("action", "stopped"), [("delete", "endpoint"), ("minimum", "endpoint to 1")])
def test_an_endpoint_that_nobody_calls_is_deleted_or_taken_to_its_minimum(monkeypatch, account, stops, action, stopped):
    made = Account(**account)
    run(monkeypatch, made, IDLE_ENDPOINT=action)
    assert (stopped in made.stopped) == stops


def test_an_endpoint_at_its_minimum_or_deleted_is_left_alone(monkeypatch):
    account = Account()
    account.endpoint["ProductionVariants"][0]["DesiredInstanceCount"] = 1
    run(monkeypatch, account, IDLE_ENDPOINT="minimum")
    account.endpoint = {}
    run(monkeypatch, account)
    assert account.stopped == ["i-old", "i-old"]


def test_what_is_too_old_is_stopped_and_reported(monkeypatch):
    account = Account(calls=1)
    account.notebook["LastModifiedTime"] = ago(11)
    report = run(monkeypatch, account)
    assert account.stopped == ["notebook", "i-old"]
    assert [line.split(",")[0] for line in report["stopped"]] == [
        "stopped the notebook instance notebook", "terminated the training instance i-old",
    ]  # fmt: skip
    assert account.messages == ["\n".join(["The cost guard:", *report["stopped"]])]


def test_a_step_that_fails_keeps_back_no_other_and_is_told(monkeypatch):
    account = Account()
    account.refused = {"endpoint"}
    with pytest.raises(RuntimeError, match="no endpoint"):
        run(monkeypatch, account)
    assert account.stopped == ["i-old"]
    assert "could not: An error occurred (AccessDenied)" in account.messages[0]


def test_nothing_to_stop_is_no_message(monkeypatch):
    account = Account(calls=1)
    account.launched = {}
    assert run(monkeypatch, account) == {"stage": "dev", "stopped": [], "failed": []}
    assert account.messages == []
