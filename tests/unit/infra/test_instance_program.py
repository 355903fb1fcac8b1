"""The training instance's program against fakes of S3, logs and metadata: whatever happens, it says so."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from emulator_fixtures import tar_gz, untar
from fake_s3 import FakeS3
from waiting import wait_until

import model
from emulator.ec2.metadata import MetadataService
from programs.ec2_training.training_instance import logs, program, storage
from programs.ec2_training.training_instance.job import JobError, job_key, require_name, status_key, stop_key
from programs.ec2_training.training_instance.logs import Log
from programs.ec2_training.training_instance.metadata import InstanceMetadata
from programs.ec2_training.training_instance.program import Training

JOB = "job-1"
WRITES_A_MODEL = "open('../model/model.json', 'w').write('{}')"
#: Saves a checkpoint and waits to be told to end.
WAITS = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, {handler})
open(os.environ["SM_CHECKPOINT_DIR"] + "/step", "w").write("7")
open("../model/model.json", "w").write("{{}}")
print("waiting", flush=True)
time.sleep(600)
"""
ENDS, IGNORES = "lambda *_: sys.exit(0)", "signal.SIG_IGN"
CHECKPOINT = f"checkpoints/{JOB}/step"


class Bucket(FakeS3):
    refuse: Callable[[str], bool] = staticmethod(lambda key: False)

    def put_object(self, *, Key: str, **request: Any) -> dict[str, str]:
        if self.refuse(Key):
            raise EndpointConnectionError(endpoint_url="https://s3")
        return super().put_object(Key=Key, **request)


class StreamMissingError(Exception):
    pass


class FakeLogs:
    exceptions = SimpleNamespace(ResourceNotFoundException=StreamMissingError)

    def __init__(self) -> None:
        self.stream_is_there = False
        self.lines: list[str] = []
        self.broken = False

    def create_log_stream(self, **_: str) -> None:
        self.stream_is_there = True

    def put_log_events(self, *, logEvents: list[dict[str, Any]], **_: str) -> None:
        if self.broken:
            raise ClientError({"Error": {"Code": "ServiceUnavailableException"}}, "PutLogEvents")
        if not self.stream_is_there:
            raise StreamMissingError
        self.lines += [event["message"] for event in logEvents]


class Instance:
    """An instance that trains one job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.s3, self.logs, self.taken_back = Bucket(), FakeLogs(), False
        self.s3.objects["datasets/dogs/train/a/1.jpg"] = b"image"
        self.describe()
        self.program(WRITES_A_MODEL)

    def describe(self, **changes: Any) -> None:
        """Put the job's description into the bucket."""
        job = {
            "name": JOB,
            "source": "s3://bucket/code/sourcedir.tar.gz",
            "channels": {"training": "s3://bucket/datasets/dogs/"},
            "hyperparameters": {"lr": "0.1"},
            "output": f"s3://bucket/training/{JOB}",
            "checkpoints": f"s3://bucket/checkpoints/{JOB}",
            "max_runtime_seconds": 60,
        }
        self.s3.objects[job_key("code/jobs", JOB)] = json.dumps(job | changes).encode()

    def program(self, source: str, **files: str) -> None:
        """Put the training program into the bucket."""
        sources = {program.PROGRAM: source, **files}
        self.s3.objects["code/sourcedir.tar.gz"] = tar_gz({name: text.encode() for name, text in sources.items()})

    def boot(self) -> Training:
        metadata = SimpleNamespace(get=lambda entry: entry, interrupted=lambda: self.taken_back)
        return Training(JOB, "bucket", self.folder, self.s3, Log(self.logs, "group", "stream"), metadata)

    def run(self) -> dict[str, Any]:
        """Train; returns the status that is left in the bucket."""
        self.boot().run()
        return self.status()

    def run_until_ended(self, handler: str, end: Callable[[], Any]) -> dict[str, Any]:
        """Train what waits, and do what ends it once its checkpoint is in the bucket."""
        self.program(WAITS.format(handler=handler))
        running = threading.Thread(target=self.boot().run)
        running.start()
        wait_until(lambda: "waiting" in self.logs.lines and CHECKPOINT in self.s3.objects)
        end()
        running.join(20)
        return self.status()

    def status(self) -> dict[str, Any]:
        return json.loads(self.s3.objects[status_key("training", JOB)])

    def archive(self, name: str) -> list[str]:
        return list(untar(self.s3.objects[f"training/{JOB}/output/{name}.tar.gz"]))


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    monkeypatch.setattr(program, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(program, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(storage, "SYNC_SECONDS", 0.05)
    monkeypatch.setattr(storage, "SETTLED_SECONDS", 0.05)
    monkeypatch.setattr(logs, "FLUSH_SECONDS", 0.02)
    return Instance(tmp_path / "root")


def test_outputs_have_sagemakers_places_and_names(instance: Instance) -> None:
    instance.program(f"{WRITES_A_MODEL}; open('../output/data/metrics.json', 'w').write('{{}}')")
    status = instance.run()
    assert (status["state"], status["exit_code"], status["reason"]) == ("Completed", 0, None)
    assert status["model"] == f"s3://bucket/training/{JOB}/output/model.tar.gz"
    assert (instance.archive("model"), instance.archive("output")) == (["model.json"], ["metrics.json"])
    assert instance.logs.lines[-1] == f"{JOB} ended as Completed"


def test_the_program_finds_what_it_finds_in_a_container(instance: Instance) -> None:
    variables = ("MODEL_DIR", "CHANNEL_TRAINING", "CHECKPOINT_DIR", "CURRENT_INSTANCE_TYPE")
    names = ["TRAINING_JOB_NAME", *(f"SM_{name}" for name in variables)]
    train = f"import os, sys, json; print(json.dumps([sys.argv[1:], *(os.environ[name] for name in {names})]))"
    source = (Path(model.__file__).parent / "training" / "job" / program.PROGRAM).read_text()
    instance.program(source, **{"train.py": train, "requirements.txt": ""})
    assert instance.run()["state"] == "Completed"
    ml = instance.folder / "ml"
    assert json.loads(next(line for line in instance.logs.lines if line[0] == "[")) == [
        ["--lr=0.1"], JOB, f"{ml}/model", f"{ml}/input/data/training", f"{ml}/checkpoints",
        "instance-type",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda i: i.s3.objects.pop("datasets/dogs/train/a/1.jpg"), "no objects below s3://bucket/datasets/dogs/"),
        (lambda i: i.s3.objects.pop("code/sourcedir.tar.gz"), "sourcedir.tar.gz cannot be unpacked"),
        (lambda i: i.s3.objects.__setitem__("code/sourcedir.tar.gz", b"junk"), "cannot be unpacked"),
        (lambda i: i.s3.objects.pop(job_key("code/jobs", JOB)), "NoSuchKey"),
        (lambda i: i.describe(surprise=1), "description is not valid"),
        (lambda i: i.describe(source="/etc"), "is not an s3:// address"),
        (lambda i: i.program("import sys; sys.exit('no luck')"), r"no luck \(exit code 1\)"),
        (lambda i: i.program("open('../output/failure', 'w').write('too dark'); 1 / 0"), r"^too dark \(exit code 1\)"),
        (lambda i: i.program("import os; os.kill(os.getpid(), 9)"), "signal 9"),
        (lambda i: i.s3.objects.__setitem__("datasets/dogs/../../../x", b""), "outside of the folder"),
    ],
)
def test_whatever_goes_wrong_is_reported(instance: Instance, break_it: Callable[[Instance], Any], reason: str) -> None:
    break_it(instance)
    status = instance.run()
    assert status["state"] == "Failed"
    assert re.search(reason, status["reason"])
    assert status["ended"] >= status["started"]
    assert status["model"] is None


def test_time_that_is_used_up_ends_the_program(instance: Instance) -> None:
    instance.describe(max_runtime_seconds=0)
    instance.program("import time; time.sleep(600)")
    status = instance.run()
    assert status["state"] == "Stopped"
    assert "MaxRuntimeExceeded" in status["reason"]


@pytest.mark.parametrize(("handler", "exit_code"), [(ENDS, 0), (IGNORES, -9)])
def test_its_user_stops_it_by_an_object_and_the_model_is_kept(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, handler: str, exit_code: int
) -> None:
    monkeypatch.setattr(program, "STOP_GRACE_SECONDS", 0.1 if handler == IGNORES else 120.0)
    key = stop_key("code/jobs", JOB)
    status = instance.run_until_ended(handler, lambda: instance.s3.objects.__setitem__(key, b""))
    assert (status["state"], status["exit_code"]) == ("Stopped", exit_code)
    assert instance.archive("model") == ["model.json"]


@pytest.mark.parametrize("state", ["Interrupted", "Stopped"])
def test_what_comes_after_the_programs_end_does_not_undo_it(instance: Instance, state: str) -> None:
    training = instance.boot()

    def too_late(key: str) -> bool:
        if key.endswith("model.tar.gz"):
            training.end_early(state, "while the model is uploaded")
        return False

    instance.s3.refuse = too_late
    training.run()
    assert (instance.status()["state"], instance.archive("model")) == ("Completed", ["model.json"])


def test_a_spot_instance_that_is_taken_back_leaves_its_checkpoints_and_the_next_goes_on(
    instance: Instance, tmp_path: Path
) -> None:
    status = instance.run_until_ended(ENDS, lambda: setattr(instance, "taken_back", True))
    assert status["state"] == "Interrupted"
    assert instance.s3.objects[CHECKPOINT] == b"7"
    assert f"training/{JOB}/output/model.tar.gz" not in instance.s3.objects
    instance.taken_back, instance.folder = False, tmp_path / "next"
    instance.program(
        f"import os; {WRITES_A_MODEL}; print('step', open(os.environ['SM_CHECKPOINT_DIR'] + '/step').read())"
    )
    assert instance.run()["state"] == "Completed"
    assert "step 7" in instance.logs.lines


def test_neither_the_log_nor_the_status_can_stop_a_training(instance: Instance) -> None:
    instance.logs.broken = True
    instance.s3.refuse = lambda key: key.endswith("status.json")
    training = instance.boot()
    training.run()
    assert training.status.state == "Completed"


@pytest.mark.parametrize("name", ["", "../x", "a" * 64, "a b", "-a"])
def test_names_that_could_lead_elsewhere_are_no_jobs(name: str) -> None:
    with pytest.raises(JobError, match="is not a name of a job"):
        require_name(name)


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What the instance's metadata service has."""
    found: dict[str, str] = {}
    service = MetadataService(lambda: found, None)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url)
    yield found
    service.close()


def test_an_interruption_is_an_entry_that_appears(entries: dict[str, str]) -> None:
    metadata = InstanceMetadata()
    assert not metadata.interrupted()
    entries["spot/instance-action"] = '{"action": "terminate"}'
    assert metadata.interrupted()


def test_without_a_tag_or_a_metadata_service_the_program_ends_with_a_message(
    entries: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["--bucket", "b", "--log-group", "g", "--folder", str(tmp_path)]
    assert program.main(arguments) == 1
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")
    assert program.main(arguments) == 1
    assert capsys.readouterr().err.count("tag training-job names no job") == 2
