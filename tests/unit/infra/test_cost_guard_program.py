"""What the cost guard's program stops, and what it leaves alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_account import FakeAccount, refusal

from programs.cost_guard import cost_guard

OWN = {"project": "kennel", "stage": "dev"}
ENVIRONMENT = {
    **{"PROJECT": OWN["project"], "STAGE": OWN["stage"], "TOPIC_ARN": "topic"},
    **{"ENDPOINT": "dogs", "IDLE_HOURS": "12", "IDLE_ENDPOINT": "delete"},
    **{"NOTEBOOK_NAME": "notebook", "NOTEBOOK_HOURS": "10", "TRAINING_HOURS": "24"},
}
STOPS = {
    "update_endpoint_weights_and_capacities": lambda request: (
        f"endpoint to {request['DesiredWeightsAndCapacities'][0]['DesiredInstanceCount']}"
    ),
    "stop_notebook_instance": lambda request: "notebook",
    "terminate_instances": lambda request: request["InstanceIds"][0],
}


def ago(hours: float) -> datetime:
    return datetime.now(UTC) - timedelta(hours=hours)


def account(
    *, deployed: float = 13, calls: float = 0, status: str = "InService", started: float = 9, instances: int = 3
) -> FakeAccount:
    """An endpoint that was deployed so many hours ago, a notebook, and two training instances, of which one is old."""
    made = FakeAccount()
    variant = {"VariantName": "main", "DesiredInstanceCount": instances}
    launched = [{"InstanceId": name, "LaunchTime": ago(hours)} for name, hours in {"i-old": 25, "i-new": 23}.items()]
    made.answers |= {
        "describe_endpoint": {
            "EndpointStatus": status, "LastModifiedTime": ago(deployed), "ProductionVariants": [variant],
        },
        "get_metric_statistics": {"Datapoints": [{"Sum": calls}] if calls else []},
        "describe_scalable_targets": {"ScalableTargets": [{"MinCapacity": 1}]},
        "describe_notebook_instance": {"NotebookInstanceStatus": "InService", "LastModifiedTime": ago(started)},
        "describe_instances": {"Reservations": [{"Instances": launched}]},
        "publish": {},
        **dict.fromkeys(STOPS),
    }  # fmt: skip
    made.endpoints["dogs"] = {}
    return made


def run(monkeypatch: pytest.MonkeyPatch, on: FakeAccount, **environment: str) -> dict[str, Any]:
    monkeypatch.setattr(cost_guard.boto3, "client", lambda _: on)
    for name, value in {**ENVIRONMENT, **environment}.items():
        monkeypatch.setenv(name, value)
    return cost_guard.handler({}, None)


def stopped(on: FakeAccount) -> list[str]:
    others = [said(request) for operation, said in STOPS.items() for request in on.requests[operation]]
    return others if on.endpoints else ["endpoint", *others]


@pytest.mark.parametrize(
    ("members", "stops"),
    [
        ({}, True),
        ({"status": "Failed"}, True),
        ({"calls": 1}, False),
        ({"deployed": 11}, False),  # a deployment counts as a use
        ({"status": "Updating"}, False),
    ],
)
@pytest.mark.parametrize(("action", "what"), [("delete", "endpoint"), ("minimum", "endpoint to 1")])
def test_an_endpoint_that_nobody_calls_is_deleted_or_taken_to_its_minimum(monkeypatch, members, stops, action, what):
    made = account(**members)
    run(monkeypatch, made, IDLE_ENDPOINT=action)
    assert (what in stopped(made)) == stops


def test_an_endpoint_at_its_minimum_or_deleted_is_left_alone(monkeypatch):
    made = account(instances=1)
    run(monkeypatch, made, IDLE_ENDPOINT="minimum")

    def gone(EndpointName: str) -> None:
        raise refusal("ValidationException", f'Could not find endpoint "{EndpointName}".')

    made.answers["describe_endpoint"] = gone
    run(monkeypatch, made)
    assert stopped(made) == ["i-old", "i-old"]


def test_what_is_too_old_is_stopped_and_reported_and_nothing_is_no_message(monkeypatch):
    made = account(calls=1, started=11)
    report = run(monkeypatch, made)
    assert stopped(made) == ["notebook", "i-old"]
    (looked,), (measured,) = made.requests["describe_instances"], made.requests["get_metric_statistics"]
    assert [{"Name": f"tag:{key}", "Values": [tag]} for key, tag in OWN.items()] == looked["Filters"][:2]
    assert measured["EndTime"] - measured["StartTime"] == timedelta(hours=12)
    assert [line.split(",")[0] for line in report["stopped"]] == [
        "stopped the notebook instance notebook", "terminated the training instance i-old",
    ]  # fmt: skip
    assert made.requests["publish"][0]["Message"] == "\n".join(["The cost guard:", *report["stopped"]])
    monkeypatch.setattr(cost_guard, "_STEPS", {})
    assert run(monkeypatch, made) == {"stage": "dev", "stopped": [], "failed": []}
    assert len(made.requests["publish"]) == 1


def test_a_step_that_fails_keeps_back_no_other_and_is_told(monkeypatch):
    made = account()
    made.refused = {"delete_endpoint"}
    with pytest.raises(RuntimeError, match="delete_endpoint"):
        run(monkeypatch, made)
    assert stopped(made) == ["i-old"]
    assert "could not: An error occurred (AccessDenied" in made.requests["publish"][0]["Message"]
