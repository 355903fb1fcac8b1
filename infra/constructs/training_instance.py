"""Training on an EC2 instance: a launch template, and the network that what it launches stands in.

Nothing here costs anything until an instance runs. Each instance trains one job, named by its tag, and ends for good.
"""

from collections.abc import Mapping

from aws_cdk import Aws, CfnTag, Fn, IgnoreMode, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from infra.constructs.data_bucket import DataBucket
from infra.constructs.inline_role import WRITE_LOG, InlineRole, arn_here
from infra.constructs.log_group import log_group
from infra.gate.compliance import acknowledge
from infra.settings import Ec2TrainingSettings
from programs import ec2_training as instance_program

NETWORK = "10.0.0.0/24"
# Two zones, because not every zone has every instance type, nor always capacity for it.
SUBNETS = ("10.0.0.0/25", "10.0.0.128/25")
SESSION_CHANNELS = [
    f"ssmmessages:{action}{channel}" for action in ("Create", "Open") for channel in ("ControlChannel", "DataChannel")
]


class TrainingNetwork(Construct):
    """A public network with a way out and none in, and without anything that is billed by the hour.

    A network of our own, because the default one may have been deleted and finding another needs a look-up at synth. No
    NAT gateway (33 USD a month, idle or not): the instances have public addresses, and a security group without inbound
    rules. The L1 classes, because the L2 `Vpc` looks up the zones of a stage that is tied to a region.
    """

    def __init__(self, scope: Construct, construct_id: str) -> None:
        super().__init__(scope, construct_id)
        vpc = ec2.CfnVPC(self, "Vpc", cidr_block=NETWORK, enable_dns_hostnames=True, enable_dns_support=True)
        acknowledge(
            vpc,
            "AwsSolutions-VPC7",
            "Nothing in this network can be reached: there is no inbound rule, and no instance between two trainings. "
            "Flow logs would record what an instance fetches, which its own log and the bucket's have.",
        )
        gateway = ec2.CfnInternetGateway(self, "Gateway")
        attachment = ec2.CfnVPCGatewayAttachment(self, "Attachment", vpc_id=vpc.ref, internet_gateway_id=gateway.ref)
        table = ec2.CfnRouteTable(self, "RouteTable", vpc_id=vpc.ref)
        route = ec2.CfnRoute(
            self, "Out", route_table_id=table.ref, destination_cidr_block="0.0.0.0/0", gateway_id=gateway.ref
        )
        route.add_resource_dependency(attachment)
        self.subnet_ids = [self._subnet(number, block, vpc, table) for number, block in enumerate(SUBNETS)]
        # Data sets and artifacts do not take the way through the Internet gateway; an S3 gateway endpoint is free.
        ec2.CfnVPCEndpoint(
            self,
            "S3",
            vpc_id=vpc.ref,
            service_name=f"com.amazonaws.{Aws.REGION}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[table.ref],
        )
        group = ec2.CfnSecurityGroup(
            self,
            "SecurityGroup",
            group_description="Training instances: nothing in, HTTPS out",
            vpc_id=vpc.ref,
            security_group_egress=[
                ec2.CfnSecurityGroup.EgressProperty(
                    ip_protocol="tcp",
                    from_port=443,
                    to_port=443,
                    cidr_ip="0.0.0.0/0",
                    description="AWS, packages and pretrained weights",
                )
            ],
        )
        self.security_group_id = group.attr_group_id

    def _subnet(self, number: int, block: str, vpc: ec2.CfnVPC, table: ec2.CfnRouteTable) -> str:
        subnet = ec2.CfnSubnet(
            self,
            f"Subnet{number + 1}",
            vpc_id=vpc.ref,
            cidr_block=block,
            availability_zone=Fn.select(number, Fn.get_azs()),
            map_public_ip_on_launch=True,
        )
        ec2.CfnSubnetRouteTableAssociation(
            self, f"Subnet{number + 1}Routes", subnet_id=subnet.ref, route_table_id=table.ref
        )
        return subnet.ref


class TrainingInstance(Construct):
    """What `kennel train --on ec2` launches; `tags` are of the instances and their volumes."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Ec2TrainingSettings,
        data: DataBucket,
        log_days: int,
        retain_logs: bool,
        tags: Mapping[str, str],
    ) -> None:
        super().__init__(scope, construct_id)
        self.network = TrainingNetwork(self, "Network")
        self.log_group = log_group(self, "Log", days=log_days, retain=retain_logs)
        program = assets.Asset(
            self,
            "Program",
            path=str(instance_program.FOLDER),
            exclude=instance_program.EXCLUDE,
            ignore_mode=IgnoreMode.GIT,
        )
        self.role = self._role(data, program)
        profile = iam.CfnInstanceProfile(self, "Profile", roles=[self.role.role_name])
        user_data = instance_program.render_user_data(
            {
                "data_bucket": data.bucket.bucket_name,
                "limit_minutes": settings.shutdown_minutes,
                "log_group": self.log_group.log_group_name,
                "program_bucket": program.s3_bucket_name,
                "program_key": program.s3_object_key,
                "region": Aws.REGION,
            }
        )
        self.launch_template = self._launch_template(settings, profile, user_data, tags)

    def _role(self, data: DataBucket, program: assets.Asset) -> InlineRole:
        """May do what a training job may do with the data, fetch its program, write its log and offer a shell."""
        role = InlineRole(self, "Role", service="ec2", description="EC2 training instances")
        data.grant_training(role)
        role.allow_in_s3("Program", ["s3:GetObject"], [program.bucket.arn_for_objects(program.s3_object_key)])
        # The group itself, and (CloudFormation's attribute ends in :*) its streams.
        group = [arn_here("logs", f"log-group:{self.log_group.log_group_name}"), self.log_group.log_group_arn]
        role.allow("Log", WRITE_LOG, group)
        # What the agent needs for a shell without an open port, and no more of Systems Manager. Source: Systems Manager
        # User Guide, "Verify or add instance permissions for Session Manager".
        role.allow_any("SessionManager", [*SESSION_CHANNELS, "ssm:UpdateInstanceInformation"])
        return role

    def _launch_template(
        self, settings: Ec2TrainingSettings, profile: iam.CfnInstanceProfile, user_data: str, tags: Mapping[str, str]
    ) -> ec2.CfnLaunchTemplate:
        """The L1 class: the L2 one makes a role and a security group of its own where it is not given these."""
        template = ec2.CfnLaunchTemplate
        named = {"Name": Stack.of(self).stack_name, **tags}
        return template(
            self,
            "LaunchTemplate",
            version_description="One training, then gone",
            launch_template_data=template.LaunchTemplateDataProperty(
                image_id=f"resolve:ssm:{settings.image_parameter}",
                instance_type=settings.instance_type,
                iam_instance_profile=template.IamInstanceProfileProperty(arn=profile.attr_arn),
                security_group_ids=[self.network.security_group_id],
                instance_initiated_shutdown_behavior="terminate",
                metadata_options=template.MetadataOptionsProperty(
                    http_endpoint="enabled",
                    http_tokens="required",
                    http_put_response_hop_limit=1,
                    instance_metadata_tags="enabled",  # the job's name comes as a tag
                ),
                block_device_mappings=[
                    template.BlockDeviceMappingProperty(
                        device_name="/dev/xvda",  # the root volume of Amazon Linux 2023
                        ebs=template.EbsProperty(
                            volume_type="gp3",
                            volume_size=settings.volume_gb,
                            encrypted=True,
                            delete_on_termination=True,
                        ),
                    )
                ],
                tag_specifications=[
                    template.TagSpecificationProperty(
                        resource_type=kind, tags=[CfnTag(key=key, value=value) for key, value in named.items()]
                    )
                    for kind in ("instance", "volume")
                ],
                user_data=Fn.base64(user_data),
            ),
        )
