"""What EC2 instances start with, and what a stage without EC2 trainings has."""

from __future__ import annotations

import re
from dataclasses import replace

from templates import text

from infra.settings import load


def test_the_image_has_the_framework_version_of_the_training_image(stage):
    version = stage.settings.training.image.tag.split("-")[0]
    assert f"-pytorch-{version}-" in stage.settings.training.ec2.image_parameter


def test_the_network_has_nothing_that_is_billed_while_idle_and_no_way_in(stage):
    types = {resource["Type"] for _, _, resource in stage.all_resources()}
    assert not types & {f"AWS::EC2::{kind}" for kind in ("NatGateway", "EIP", "Instance", "FlowLog")}
    assert "AWS::EC2::SecurityGroupIngress" not in types


def test_the_user_data_sets_the_time_limit_first_is_complete_and_within_ec2s_limit(stage):
    launch = stage.properties("training", "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]
    user_data = text(launch["UserData"]["Fn::Base64"])
    commands = [line for line in user_data.splitlines() if line and not line.startswith("#")]
    assert commands[0].startswith("shutdown -P +90 ")
    assert "{{" not in user_data
    assert len(user_data.encode()) < 16 * 1024


def test_the_program_holds_nothing_but_itself(stage):
    (program,) = (path for path in stage.assembly.glob("asset.*") if (path / "training_instance").is_dir())
    files = {path.relative_to(program).as_posix() for path in program.rglob("*") if path.is_file()}
    assert {"__main__.py", "training_instance/program.py"} <= files
    assert all(re.fullmatch(r"(__main__|training_instance/\w+)\.py", name) for name in files)


def test_without_the_section_there_is_no_trace_of_it(synthesise):
    dev = load("dev")
    stage = synthesise(replace(dev, training=replace(dev.training, ec2=None)))
    types = {resource["Type"] for resource in stage.template("training")["Resources"].values()}
    assert types == {"AWS::IAM::Role"}
