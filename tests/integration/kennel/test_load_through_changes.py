"""An open loop of requests through two deployments, a killed instance and a scale-in.

A minute at least, or LOAD_SECONDS; ten minutes are in docs/measurements/local-aws.md.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest
from clone import Project
from serving_fixtures import COLOURS, LABELS, image_bytes, make_artifact
from waiting import wait_until

from cli.aws import Stage
from cli.load.stream import RIGHT, TRY_AGAIN, Stream, labels_of, tally
from cli.load.target import Target, check_labels
from emulator.platform.running import lifecycle
from model.core.packaging import package

SECONDS = float(os.environ.get("LOAD_SECONDS", "60"))
#: Requests per second: for three instances of the stage demo, and for one.
BUSY, QUIET = 12.0, 2.0


def await_instances(stage: Stage, count: int) -> None:
    """Wait until so many are wanted and running, and nothing changes any more."""
    sagemaker = stage.client("sagemaker")

    def there() -> bool:
        endpoint = sagemaker.describe_endpoint(EndpointName=stage.settings.endpoint_name)
        (variant,) = endpoint["ProductionVariants"]
        running = {variant["DesiredInstanceCount"], variant["CurrentInstanceCount"]}
        return running == {count} and endpoint["EndpointStatus"] == "InService"

    wait_until(there, 180)


def kill_a_server(project: Project) -> None:
    """Kill one of the servers of the endpoint, and what it has started dies with it."""
    running = lifecycle.status(project.root / ".kennel" / "local")
    assert running is not None
    servers = [
        process
        for process in psutil.Process(running.pid).children(recursive=True)
        if process.cwd().endswith("/model") and psutil.Process(process.ppid()).pid == running.pid
    ]
    servers[0].kill()


@pytest.mark.slow
def test_a_load_through_deployments_a_death_and_a_scale_in_gets_right_answers_or_is_told_to_come_back(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    models = []
    for number, labels in enumerate((LABELS, LABELS[::-1])):  # of another graph, and so of another version
        made = make_artifact(tmp_path / str(number), blue_steps=number, labels=labels, display_labels=labels)
        package(made, tmp_path / f"{number}.tar.gz")
        models.append(tmp_path / f"{number}.tar.gz")

    def deploy(number: int, *stacks: str) -> None:
        place = project.root / "build" / "demo" / "model.tar.gz"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(models[number].read_bytes())
        project.kennel("--stage", "demo", "deploy", "--yes", *stacks)

    project.start_local_aws("--clock", "30", "--instance-start", "60")
    deploy(0, "storage", "inference")
    for name, value in project.environment.items():
        monkeypatch.setenv(name, value)
    stage, images = Stage("demo"), [image_bytes(colour) for colour in COLOURS]
    target = Target(stage, images, stage.output("inference", "FunctionUrl"), "lambda")
    check = check_labels(labels_of(models[0], images) | labels_of(models[1], images))
    end = time.monotonic() + SECONDS
    with Stream(target, BUSY, check) as load:
        await_instances(stage, 3)
        deploy(1, "inference")
        kill_a_server(project)
        await_instances(stage, 3)
        deploy(0, "inference")
        time.sleep(max(0.0, end - time.monotonic() - SECONDS / 4))
        load.rate = QUIET
        await_instances(stage, 1)
        time.sleep(max(0.0, end - time.monotonic()))
    found = tally(load.results)
    print(f"{time.monotonic() - end + SECONDS:.0f} s: {dict(found)}")
    assert set(found) <= {RIGHT, TRY_AGAIN}, found
    assert found[TRY_AGAIN] < found[RIGHT] / 100
