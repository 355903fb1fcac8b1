"""What was under way when the server of the local AWS was killed, or taken down, is brought to its end by the next one.

All of it is under way on one server, which ends once in each way; each test looks at one thing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from sagemaker_jobs import TransformJob, Tuning
from sagemaker_local import ACTIONS, BUCKET, SERVER, LocalSageMaker, alive, local_aws
from waiting import wait_until

pytestmark = pytest.mark.slow

#: Reports an epoch every moment, with a checkpoint after the second and the fourth; waits for GO after the fifth.
REPORTING = """
import os, pathlib, time
state = pathlib.Path(os.environ["SM_CHECKPOINT_DIR"], "epoch")
for epoch in range(int(state.read_text()) + 1 if state.exists() else 1, 9):
    print(f"epoch={epoch} loss={1 / epoch:.4f}")
    time.sleep(1 if epoch in (2, 4) else 0.1)  # what is printed is read before there is a checkpoint of it
    if epoch in (2, 4):
        state.with_name("new").write_text(str(epoch))
        state.with_name("new").replace(state)
    while epoch == 5 and not os.path.exists("GO"):
        time.sleep(0.1)
"""
STUBBORN = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('up')\ntime.sleep(600)"
SLOW = b"#!/bin/sh\nsleep 2\nexec python3 code/real\n"


class UnderWay:
    def __init__(self, aws: LocalSageMaker, folder: Path) -> None:
        self.aws, role = aws, aws.job_role(*ACTIONS)
        model = aws.model(aws.artifact("old"), role)
        config = aws.config(model)
        name = aws.endpoint(aws.config(model, InitialInstanceCount=2))
        self.updating, doomed = aws.endpoint(config), aws.endpoint(config)
        self.update = aws.config(aws.model(aws.artifact("new", **{"code/serve": SLOW, "code/real": SERVER}), role))
        algorithm = {"MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}]}
        program = REPORTING.replace("GO", str(folder / "go"))
        checkpoints = {"CheckpointConfig": {"S3Uri": f"s3://{BUCKET}/checkpoints"}}
        self.training = {
            "with checkpoints": aws.train(role, program, algorithm=algorithm, **checkpoints),
            "without": aws.train(role, program, algorithm=algorithm),
        }
        self.being_stopped = aws.train(role, STUBBORN)
        self.transform = TransformJob(aws, model, {"a": b"who", "b": b"sleep 12"})
        self.tuning, self.stopping = (Tuning(aws, role, jobs=4, static={"pause": "0.5"}) for _ in range(2))
        script = f"#!/bin/bash\necho $$ > {folder}/new; mv {folder}/new {folder}/pid\nsleep 1000\n"
        launched = aws.client("ec2").run_instances(ImageId="ami-1", MinCount=1, MaxCount=1, UserData=script)
        self.instance = launched["Instances"][0]["InstanceId"]
        wait_until((folder / "pid").exists)
        wait_until(lambda: all(len(self.losses(job)) == 5 for job in self.training))
        wait_until(lambda: self.checkpoint() == b"4")
        wait_until(lambda: "a.out" in self.transform.outputs())
        wait_until(lambda: "Completed" in [job["TrainingJobStatus"] for job in self.tuning.jobs()])
        self.pids = {int((folder / "pid").read_text()), self.transform_pid(), *aws.pids(name, 2)}
        self.endpoint, self.before = aws.settled(name), tried(self.tuning)
        self.stopping.stop()
        aws.sagemaker.stop_training_job(TrainingJobName=self.being_stopped)
        aws.sagemaker.update_endpoint(EndpointName=self.updating, EndpointConfigName=self.update)
        aws.sagemaker.create_endpoint(EndpointName="born", EndpointConfigName=config)
        aws.sagemaker.delete_endpoint(EndpointName=doomed)

    def losses(self, job: str) -> list[float]:
        return [point.value for point in self.aws.series(self.training[job], "loss")]

    def checkpoint(self) -> bytes:
        with contextlib.suppress(ClientError):
            return bytes(self.aws.s3.get_object(Bucket=BUCKET, Key="checkpoints/epoch")["Body"].read())
        return b""

    def transform_pid(self) -> int:
        return int(json.loads(self.transform.outputs()["a.out"])["pid"])


def tried(tuning: Tuning) -> dict[str, Any]:
    return {job["TrainingJobName"]: job["TunedHyperParameters"] for job in tuning.jobs()}


@pytest.fixture(scope="module", params=["killed", "taken down"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnderWay]:
    folder = tmp_path_factory.mktemp("aws")
    with local_aws(folder / "state") as aws:
        under_way = UnderWay(aws, folder)
        if request.param == "killed":
            aws.kill()
        else:
            aws.down()
        wait_until(lambda: not any(map(alive, under_way.pids)))
        (folder / "go").touch()
        aws.up()
        yield under_way


def test_an_endpoint_comes_back_as_it_was(found: UnderWay) -> None:
    name = found.endpoint["EndpointName"]
    assert found.aws.who(name)["version"] == "old"
    assert not found.aws.pids(name, 2) & found.pids
    after = found.aws.settled(name)
    for member in ("EndpointArn", "EndpointConfigName", "CreationTime", "EndpointStatus"):
        assert after[member] == found.endpoint[member]


def test_an_update_of_an_endpoint_goes_on(found: UnderWay) -> None:
    assert found.aws.settled(found.updating)["EndpointConfigName"] == found.update
    assert found.aws.who(found.updating)["version"] == "new"


def test_an_endpoint_that_was_being_created_is_there_and_one_that_was_being_deleted_is_not(found: UnderWay) -> None:
    names = {found.endpoint["EndpointName"], found.updating, "born"}
    wait_until(lambda: {e["EndpointName"] for e in found.aws.sagemaker.list_endpoints()["Endpoints"]} == names)
    assert found.aws.settled("born")["EndpointStatus"] == "InService"
    assert found.aws.who("born")["version"] == "old"


@pytest.mark.parametrize("job", ["with checkpoints", "without"])
def test_a_training_job_begins_anew_and_has_reported_every_epoch_once(found: UnderWay, job: str) -> None:
    """Hyperband and early stopping take the third value for that of the third epoch."""
    described = found.aws.ended(found.training[job])
    assert described["TrainingJobStatus"] == "Completed"
    assert "Restarting" in [transition["Status"] for transition in described["SecondaryStatusTransitions"]]
    assert found.losses(job) == [round(1 / epoch, 4) for epoch in range(1, 9)]
    again = found.aws.printed(found.training[job]).count("epoch=4 loss=0.2500")
    assert again == (1 if job == "with checkpoints" else 2)


def test_a_training_job_that_was_being_stopped_stays_stopped(found: UnderWay) -> None:
    assert found.aws.job(found.being_stopped)["TrainingJobStatus"] == "Stopped"


def test_a_transform_job_begins_anew(found: UnderWay) -> None:
    assert found.transform.ended()["TransformJobStatus"] == "Completed"
    assert found.transform.outputs().keys() == {"a.out", "b.out"}
    assert found.transform_pid() not in found.pids


def test_a_tuning_job_goes_on_with_what_it_has_tried(found: UnderWay) -> None:
    described = found.tuning.ended()
    assert described["HyperParameterTuningJobStatus"] == "Completed"
    assert described["TrainingJobStatusCounters"]["Completed"] == len(tried(found.tuning)) == 4
    assert found.before.items() <= tried(found.tuning).items()


def test_a_tuning_job_that_was_being_stopped_stops(found: UnderWay) -> None:
    assert found.stopping.ended()["HyperParameterTuningJobStatus"] == "Stopped"
    assert len(found.stopping.jobs()) <= 4


def test_an_ec2_instance_ends_with_its_server(found: UnderWay) -> None:
    reservations = found.aws.client("ec2").describe_instances(InstanceIds=[found.instance])["Reservations"]
    assert reservations[0]["Instances"][0]["State"]["Name"] == "terminated"
    assert not [path for path in (found.aws.state_dir / "ec2").iterdir() if path.is_dir()]
