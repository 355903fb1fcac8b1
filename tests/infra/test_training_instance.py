"""The launch template of EC2 trainings, its network and its role: one property a test."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from templates import SynthesisedStage, text

from infra.settings import load


@pytest.fixture
def launch(stage: SynthesisedStage) -> dict:
    return stage.properties("training", "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]


def test_the_image_has_the_framework_version_of_the_training_image(stage):
    version = stage.settings.training.image.tag.split("-")[0]
    assert f"-pytorch-{version}-" in stage.settings.training.ec2.image_parameter


def test_metadata_need_a_token_that_does_not_leave_the_machine_and_name_the_job(launch):
    options = launch["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 1)
    assert options["InstanceMetadataTags"] == "enabled"


def test_an_instance_has_the_profile_and_the_security_group_of_the_stack(stage, launch):
    (profile,) = stage.resources("training", "AWS::IAM::InstanceProfile")
    (group,) = stage.resources("training", "AWS::EC2::SecurityGroup")
    assert text(launch["IamInstanceProfile"]["Arn"]) == f"<{profile}.Arn>"
    assert [text(given) for given in launch["SecurityGroupIds"]] == [f"<{group}.GroupId>"]


def test_the_volume_goes_with_the_instance(launch):
    (volume,) = (mapping["Ebs"] for mapping in launch["BlockDeviceMappings"])
    assert volume["DeleteOnTermination"] is True
    assert volume["VolumeType"] == "gp3"


def test_shutting_down_ends_the_instance_for_good(launch):
    assert launch["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert "KeyName" not in launch


def test_nothing_can_connect_to_an_instance_and_it_reaches_others_by_https_only(stage):
    group = stage.properties("training", "AWS::EC2::SecurityGroup")
    assert "SecurityGroupIngress" not in group
    assert "AWS::EC2::SecurityGroupIngress" not in {r["Type"] for _, _, r in stage.all_resources()}
    (rule,) = group["SecurityGroupEgress"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 443, 443)


def test_the_network_has_nothing_that_is_billed_while_idle(stage):
    types = {resource["Type"] for resource in stage.template("training")["Resources"].values()}
    assert not types & {"AWS::EC2::NatGateway", "AWS::EC2::EIP", "AWS::EC2::Instance", "AWS::EC2::FlowLog"}
    assert stage.properties("training", "AWS::EC2::VPCEndpoint")["VpcEndpointType"] == "Gateway"


def test_every_subnet_has_the_way_out_and_the_one_to_s3(stage):
    (table,) = stage.resources("training", "AWS::EC2::RouteTable")
    (route,) = stage.resources("training", "AWS::EC2::Route").values()
    (gateway,) = stage.resources("training", "AWS::EC2::InternetGateway")
    out = {"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": {"Ref": gateway}, "RouteTableId": {"Ref": table}}
    assert route["Properties"] == out
    assert stage.properties("training", "AWS::EC2::VPCEndpoint")["RouteTableIds"] == [{"Ref": table}]
    subnets = stage.resources("training", "AWS::EC2::Subnet")
    routed = {
        (association["Properties"]["SubnetId"]["Ref"], association["Properties"]["RouteTableId"]["Ref"])
        for association in stage.resources("training", "AWS::EC2::SubnetRouteTableAssociation").values()
    }
    assert routed == {(subnet, table) for subnet in subnets}
    # Without a NAT gateway nothing leaves from a private address.
    assert all(subnet["Properties"]["MapPublicIpOnLaunch"] is True for subnet in subnets.values())


def test_the_user_data_sets_the_time_limit_first_is_complete_and_within_ec2s_limit(launch):
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
