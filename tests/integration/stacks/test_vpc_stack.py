"""The default VPC of the CDK: its records are there, and go again."""

from __future__ import annotations

from typing import Any

from aws_cdk import App, CfnOutput, Stack, assertions
from aws_cdk import aws_ec2 as ec2
from sagemaker_local import LocalSageMaker


def vpc_template() -> dict[str, Any]:
    stack = Stack(App(), "Vpc")
    vpc = ec2.Vpc(stack, "Vpc")
    vpc.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3)
    vpc.add_flow_log("Flow")
    web, other = (ec2.SecurityGroup(stack, name, vpc=vpc, allow_all_outbound=False) for name in ("Web", "Other"))
    web.connections.allow_from(other, ec2.Port.tcp(8080))
    acl, port = ec2.NetworkAcl(stack, "Acl", vpc=vpc), ec2.AclTraffic.tcp_port(443)
    acl.add_entry("Https", cidr=ec2.AclCidr.any_ipv4(), rule_number=100, traffic=port)
    CfnOutput(stack, "Cidr", value=vpc.vpc_cidr_block)
    CfnOutput(stack, "WebId", value=web.security_group_id)
    return dict(assertions.Template.from_stack(stack).to_json())


def test_the_default_vpc_of_the_cdk_is_there_and_goes_again(aws: LocalSageMaker) -> None:
    template = vpc_template()
    del template["Rules"], template["Parameters"]  # they ask for the bootstrap stack
    stack = aws.deploy("vpc", template)
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    assert outputs["Cidr"] == "10.0.0.0/16"
    client = aws.client("ec2")
    gateways = client.describe_nat_gateways()["NatGateways"]
    assert [gateway["State"] for gateway in gateways] == ["available"] * 2
    assert len(client.describe_addresses()["Addresses"]) == 2
    (web,) = client.describe_security_groups(GroupIds=[outputs["WebId"]])["SecurityGroups"]
    assert [rule["FromPort"] for rule in web["IpPermissions"]] == [8080]
    entries = [entry for acl in client.describe_network_acls()["NetworkAcls"] for entry in acl["Entries"]]
    assert [entry["Protocol"] for entry in entries if entry["Protocol"] != "-1"] == ["6"]
    assert client.describe_flow_logs()["FlowLogs"][0]["TrafficType"] == "ALL"
    assert aws.delete(stack)["StackStatus"] == "DELETE_COMPLETE"
    assert client.describe_addresses()["Addresses"] == client.describe_flow_logs()["FlowLogs"] == []
