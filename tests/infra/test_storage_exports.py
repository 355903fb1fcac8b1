"""What storage exports never depends on what the other stacks hold.

CloudFormation refuses to take away an export that another stack still imports, and a stack is updated before those that
import from it. So a setting that changed the exports could not be changed on a deployed stage.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aws_cdk import App
from templates import SynthesisedStage

from infra import application
from infra.settings import Ec2TrainingSettings, NotebookSettings, Settings, load

#: By logical id of the output: the bucket's name and ARN, the key's ARN, and the repository's name and ARN.
EXPORTS = {
    "ExportsOutputRefDataBucketE6B0FAA83794BF10",
    "ExportsOutputFnGetAttDataBucketE6B0FAA8Arn3FF3A9FF",
    "ExportsOutputFnGetAttDataKey5F086070Arn0ECF9F84",
    "ExportsOutputRefImages2D38C3131DF9B1C4",
    "ExportsOutputFnGetAttImages2D38C313Arn6C6DDC6E",
}

IMAGE = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/team/runtime:7"


def every_combination() -> list[Settings]:
    """A stage with and without each thing that uses the bucket or its key."""
    dev = load("dev")
    return [
        replace(
            dev,
            training=replace(dev.training, ec2=ec2),
            notebook=notebook,
            serving=replace(dev.serving, instance_type=instance_type, image="own" if ec2 else IMAGE),
        )
        for ec2, notebook, instance_type in itertools.product(
            (None, Ec2TrainingSettings()),
            (None, NotebookSettings()),
            ("ml.m5.large", "ml.m5d.large"),  # the second takes no key for its disks
        )
    ]


@pytest.mark.parametrize("settings", every_combination(), ids=range(8))
def test_storage_exports_the_same_whatever_the_settings_have(make_app: Callable[[], App], settings: Settings):
    app = make_app()
    application.add_stacks(app, settings, Path("does-not-exist.tar.gz"))
    stage = SynthesisedStage(settings, Path(app.synth().directory))
    assert {name for name, output in stage.template("storage")["Outputs"].items() if "Export" in output} == EXPORTS
