"""The first deployment, step by step: what docs/first-deploy.md says, `make e2e` does and the local AWS rehearses."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.aws import Stage
from cli.operating.deploying import StackKind
from cli.training.job_names import job_prefix
from infra.prices import usd_per_hour

#: Minutes that are billed: four trainings together, and the endpoint with the transform job.
TRAINING_MINUTES, SERVING_MINUTES = 20, 40
#: The key, logs, requests and the function with its provisioned concurrency, in USD.
OTHER_COSTS = 0.10


@dataclass(frozen=True)
class Step:
    command: str
    #: Somewhere in what it prints. A group is remembered as the JOB of later commands.
    seen: str
    ends_with: int = 0
    #: Ctrl-C when this appears.
    interrupt_at: str | None = None


STEPS = (
    Step("kennel data sample data/first --breeds 2 --train 40 --valid 5 --test 5", "100 images of 2 breeds"),
    Step("kennel deploy storage training", "Deployed storage, training"),
    Step("kennel data push data/first", "100 uploaded"),
    Step("kennel train --data first --set epochs=3", r"\bcompleted in \d+ s"),
    Step("kennel train --data first --set epochs=10000", r"Training job (\S+) on", 130, interrupt_at=r"\bepoch=2 "),
    Step("kennel train --stop JOB", "is stopping"),
    Step("kennel train --follow JOB", "Stopped", ends_with=5),
    Step("kennel package --job JOB", "2 classes"),
    Step("kennel tune --data first --max-jobs 2 --parallel 2 --set epochs=3", "Best: lr="),
    Step("kennel package", "2 classes"),
    Step("kennel deploy", r"The function answers at https?://"),
    Step("kennel classify data/first/test/*/*_0001.jpg", r"Scottish[ _]terrier"),
    Step("kennel batch data/first/test", "10 of 10 images are labelled"),
)
END = Step("kennel destroy", "Nothing of the stage")


def estimate(stage: Stage) -> float:
    """US dollars that the steps cost, at list prices."""
    training, serving = stage.settings.training.instance_type, stage.settings.serving.instance_type
    hours = {training: TRAINING_MINUTES / 60, serving: SERVING_MINUTES / 60}
    return OTHER_COSTS + sum((usd_per_hour(name) or 0) * length for name, length in hours.items())


def refuse_other_accounts(stage: Stage, account: str, region: str) -> None:
    """Raise ValueError for another account or region than the named ones, and for a stage that somebody uses."""
    actual = stage.client("sts").get_caller_identity()["Account"]
    if (actual, stage.region) != (account, region):
        raise ValueError(f"{account} in {region} was named, but the credentials are of {actual} in {stage.region}.")
    if names := stacks(stage):
        raise ValueError(f"{', '.join(names)} is deployed there already, and these steps would destroy it.")


def stacks(stage: Stage) -> list[str]:
    return [name for name in map(stage.stack_name, StackKind) if stage.find_stack(name)]


def what_is_left(stage: Stage, made: list[str]) -> list[str]:
    """What goes on costing after the stage has been destroyed: stacks, jobs that run, buckets that it had made."""
    left, sagemaker = stacks(stage), stage.client("sagemaker")
    left += sorted({bucket["Name"] for bucket in stage.client("s3").list_buckets()["Buckets"]} & set(made))
    for kind in ("Training", "Transform"):
        pages = sagemaker.get_paginator(f"list_{kind.lower()}_jobs").paginate(NameContains=job_prefix(stage))
        jobs = [job for page in pages for job in page[f"{kind}JobSummaries"]]
        left += [job[f"{kind}JobName"] for job in jobs if job[f"{kind}JobStatus"] in ("InProgress", "Stopping")]
    return left


def first_deploy(walk: Walk, stage: Stage) -> None:
    """Go through all steps, take everything down in any case, and make sure that nothing is left."""
    made: list[str] = []
    try:
        with walk.taken_down():
            for step in STEPS:
                walk.do(step)
                if step.command.startswith("kennel deploy storage"):
                    name = stage.stack_name("storage")
                    resources = stage.client("cloudformation").describe_stack_resources(StackName=name)
                    made = [found["PhysicalResourceId"] for found in resources["StackResources"]]
    finally:
        left = what_is_left(stage, made)
        print(f"Left in the account: {', '.join(left) or 'nothing'}.")
    assert left == []


@dataclass
class Walk:
    """Goes through the steps in one shell."""

    folder: Path
    environment: Mapping[str, str]
    job: str = ""

    def do(self, step: Step) -> None:
        """Run one command, show what it prints, and compare."""
        command = step.command.replace("JOB", self.job)
        if command.startswith(("kennel deploy", "kennel destroy")):
            command += " --yes"  # this was started by somebody who agrees
        print(f"$ {command}", flush=True)
        printed, waiting_for = "", step.interrupt_at
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        where = {"cwd": self.folder, "env": dict(self.environment)}
        with subprocess.Popen(["bash", "-c", f"exec {command}"], **where, **pipes) as process:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                printed += line
                if waiting_for and re.search(waiting_for, line):
                    process.send_signal(signal.SIGINT)
                    waiting_for = None
        found = re.search(step.seen, printed)
        assert process.returncode == step.ends_with, f"{command} ended with {process.returncode}:\n{printed}"
        assert found, f"{command} did not print {step.seen!r}:\n{printed}"
        self.job = found[1] if found.groups() else self.job

    @contextmanager
    def taken_down(self) -> Iterator[None]:
        """Destroy at the end, whatever happens: a step that fails, Ctrl-C, or a request to end."""
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            yield
        finally:
            print("Taking all of it down; Ctrl-C is ignored until that is done.", flush=True)
            interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            try:
                self.do(END)
            except AssertionError:
                print("Once more: what was in the way may have ended by now.", flush=True)
                self.do(END)
            finally:
                signal.signal(signal.SIGINT, interrupt)
                signal.signal(signal.SIGTERM, before)
