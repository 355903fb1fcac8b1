"""What the local SageMaker does when its server ends, in an orderly way or not."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from sagemaker_local import BUCKET, IMAGE, SERVER, Local, alive, local_aws
from waiting import wait_until

from emulator.platform import lifecycle

pytestmark = pytest.mark.slow

ACTIONS = ("s3:*", "logs:*")

#: Counts in a checkpoint, the first time until somebody ends it and then up to ten; leaves where it began.
COUNTING = """
import os, pathlib, time
folder = pathlib.Path(os.environ["SM_CHECKPOINT_DIR"])
state = folder / "count"
first = not state.exists()
count = 0 if first else int(state.read_text())
starts = pathlib.Path(os.environ["SM_MODEL_DIR"], "began_at")
starts.write_text(str(count))
print("began at", count)
while count < 10:
    count += 1
    (folder / "new").write_text(str(count))
    (folder / "new").replace(state)
    print("count", count)
    if first and count == 5:
        time.sleep(600)
"""

#: Reports an epoch every moment, with a checkpoint after the second and the fourth; hangs after the fifth at first.
REPORTING = """
import os, pathlib, time
state = pathlib.Path(os.environ["SM_CHECKPOINT_DIR"], "epoch")
first = not state.exists()
for epoch in range(1 if first else int(state.read_text()) + 1, 9):
    print(f"epoch={epoch} loss={1 / epoch:.4f}")
    time.sleep(0.2)
    if epoch in (2, 4):
        state.with_name("new").write_text(str(epoch))
        state.with_name("new").replace(state)
    if first and epoch == 5:
        time.sleep(600)
"""


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    with local_aws(tmp_path / "aws") as local:
        yield local


def answers(local: Local, endpoint: str) -> bool:
    with contextlib.suppress(ClientError, BotoCoreError):
        return local.invoke(endpoint, b"x") == b"x"
    return False


def content(local: Local, key: str) -> bytes | None:
    """What an object holds, once it is there."""
    with contextlib.suppress(ClientError):
        body: bytes = local.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return body
    return None


@pytest.mark.parametrize("crash", [False, True])
def test_endpoints_come_back_as_they_were(local: Local, crash: bool) -> None:
    role = local.role(*ACTIONS)
    name = local.endpoint(local.config(local.artifact("1"), role))
    local.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=name, DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 2}]
    )
    before = local.settled(name)
    pids = local.pids(name, 2)
    if crash:
        local.kill()
    else:
        lifecycle.down(local.state_dir)
    wait_until(lambda: not any(alive(pid) for pid in pids))
    local.up()
    assert wait_until(lambda: answers(local, name))
    assert len(local.pids(name, 2)) == 2
    after = local.settled(name)
    for member in ("EndpointArn", "EndpointConfigName", "CreationTime", "EndpointStatus"):
        assert after[member] == before[member]


def test_a_crash_in_the_middle_of_an_update_does_not_lose_the_update(local: Local) -> None:
    role = local.role(*ACTIONS)
    name = local.endpoint(local.config(local.artifact("old"), role))
    slow = b"#!/bin/sh\nsleep 2\nexec python3 code/real\n"
    config = local.config(local.artifact("new", **{"code/serve": slow, "code/real": SERVER}), role)
    local.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config)
    local.kill()
    local.up()
    assert local.sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "Updating"
    assert wait_until(lambda: answers(local, name))
    assert json.loads(local.invoke(name, b"who"))["version"] == "old"
    described = local.settled(name)
    assert described["EndpointConfigName"] == config
    assert local.who(name)["version"] == "new"


def test_a_crash_while_an_endpoint_is_created_or_deleted_is_made_good(local: Local) -> None:
    role = local.role(*ACTIONS)
    config = local.config(local.artifact("1"), role)
    doomed = local.endpoint(config)
    local.sagemaker.create_endpoint(EndpointName="born", EndpointConfigName=config)
    local.sagemaker.delete_endpoint(EndpointName=doomed)
    local.kill()
    local.up()
    assert local.settled("born")["EndpointStatus"] == "InService"
    assert answers(local, "born")
    wait_until(lambda: [e["EndpointName"] for e in local.sagemaker.list_endpoints()["Endpoints"]] == ["born"])


@pytest.mark.parametrize("crash", [False, True])
def test_an_interrupted_job_begins_anew_from_its_checkpoint(local: Local, crash: bool) -> None:
    role = local.role(*ACTIONS)
    checkpoints = {"S3Uri": f"s3://{BUCKET}/checkpoints"}
    job = local.train(role, COUNTING, CheckpointConfig=checkpoints)

    def checkpoint() -> int:
        return int(content(local, "checkpoints/count") or 0)

    reached = wait_until(checkpoint)
    if crash:
        local.kill()
    else:
        lifecycle.down(local.state_dir)
    local.up()
    described = local.ended(job)
    assert described["TrainingJobStatus"] == "Completed"
    assert "Restarting" in [t["Status"] for t in described["SecondaryStatusTransitions"]]
    assert int(local.output(job)["began_at"]) >= reached
    assert checkpoint() == 10


@pytest.mark.parametrize("keeps_checkpoints", [True, False])
def test_a_job_that_begins_anew_has_reported_every_epoch_once(local: Local, keeps_checkpoints: bool) -> None:
    """Hyperband and early stopping take the third value for that of the third epoch."""
    role = local.role(*ACTIONS)
    config = {"CheckpointConfig": {"S3Uri": f"s3://{BUCKET}/checkpoints"}} if keeps_checkpoints else {}
    program = REPORTING if keeps_checkpoints else REPORTING.replace("first and epoch == 5", "False")
    metrics = {"MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}]}
    algorithm = {"TrainingImage": IMAGE, "TrainingInputMode": "File", **metrics}
    job = local.train(role, program, AlgorithmSpecification=algorithm, **config)

    def values() -> list[float]:
        return [point.value for point in local.series(job, "loss")]

    wait_until(lambda: len(values()) >= 5)
    if keeps_checkpoints:
        wait_until(lambda: content(local, "checkpoints/epoch") == b"4")
    local.kill()
    local.up()
    assert local.ended(job)["TrainingJobStatus"] == "Completed"
    assert values() == [round(1 / epoch, 4) for epoch in range(1, 9)]


def test_a_job_that_was_being_stopped_stays_stopped(local: Local) -> None:
    stubborn = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('up')\ntime.sleep(600)"
    job = local.train(local.role(*ACTIONS), stubborn)
    wait_until(lambda: local.job(job)["SecondaryStatus"] == "Training")
    local.sagemaker.stop_training_job(TrainingJobName=job)
    local.kill()
    local.up()
    assert local.job(job)["TrainingJobStatus"] == "Stopped"
