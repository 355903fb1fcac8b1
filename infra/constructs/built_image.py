"""The serving container's own image: built from this repository while the stack is deployed."""

import json
from pathlib import Path

from aws_cdk import Aws, CustomResource, Duration, IgnoreMode, RemovalPolicy
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from infra import custom_resources
from infra.constructs.policies import allow, allow_in_s3, policy

# What the Dockerfile reads, and so what the image is made of.
SOURCES = ("Dockerfile", "artifact_digest.py", "image/requirements.txt", "image/serve")
# By instruction set: builds run on the one they are for, because emulating the other takes ten times as long.
BUILD_IMAGES: dict[str, codebuild.IBuildImage] = {
    "arm64": codebuild.LinuxArmBuildImage.AMAZON_LINUX_2023_STANDARD_4_0,
    "x86_64": codebuild.LinuxBuildImage.AMAZON_LINUX_2023_6,
}
# A build takes two to three minutes. All of it has to fit into the fifteen that the function may wait; CodeBuild's
# shortest limit for waiting in its queue is five.
BUILD_TIMEOUT = Duration.minutes(8)
QUEUE_TIMEOUT = Duration.minutes(5)
FUNCTION_TIMEOUT = Duration.minutes(15)
# CloudFormation's own time-out for an answer is an hour; the function answers before it ends or not at all.
SERVICE_TIMEOUT = Duration.minutes(16)
KEPT_IMAGES = 10
WRITE_LOG = ["logs:CreateLogStream", "logs:PutLogEvents"]
# One phase, because CodeBuild runs the next one even when one has failed.
BUILD_SPEC = {
    "version": "0.2",
    "phases": {
        "build": {
            "commands": [
                # One image and no attestations: SageMaker refuses image indexes.
                "docker build --progress plain --provenance=false --tag $REPOSITORY:$IMAGE_TAG .",
                "aws ecr get-login-password | docker login --username AWS --password-stdin $REGISTRY",
                "docker push --quiet $REPOSITORY:$IMAGE_TAG",
            ]
        }
    },
}


class BuiltImage(Construct):
    """A repository, the project that builds into it, and the resource that makes each deployment build what is missing.

    The image's tag is the hash of what it is made of: the same files are never built twice, and the image of an
    earlier deployment is still there to roll back to.

    Attributes
    ----------
    repository
        Immutable tags, scanned on push; keeps the newest images.
    uri
        The image's address. Whoever uses it is created after the image has been built.
    """

    def __init__(self, scope: Construct, construct_id: str, *, source: Path, architecture: str) -> None:
        super().__init__(scope, construct_id)
        self.repository = self._repository()
        asset = assets.Asset(
            self,
            "Source",
            path=str(source),
            exclude=["*", "!/image", *(f"!/{file}" for file in SOURCES)],
            ignore_mode=IgnoreMode.GIT,
        )
        build_log = self._log_group("BuildLog")
        project = self._project(asset, build_log, architecture)
        image = CustomResource(
            self,
            "Image",
            resource_type="Custom::ContainerImage",
            service_token=self._builder(project, build_log).function_arn,
            service_timeout=SERVICE_TIMEOUT,
            properties={
                "ProjectName": project.ref,
                "RepositoryName": self.repository.repository_name,
                "RepositoryUri": self.repository.repository_uri,
                "Tag": f"{architecture}-{asset.asset_hash[:16]}",
            },
        )
        self.uri = image.get_att_string("ImageUri")

    def _repository(self) -> ecr.Repository:
        return ecr.Repository(
            self,
            "Repository",
            image_scan_on_push=True,
            image_tag_mutability=ecr.TagMutability.IMMUTABLE,
            # Public packages and nothing else: there is no secret in them that a key of our own would keep.
            encryption=ecr.RepositoryEncryption.AES_256,
            lifecycle_rules=[
                ecr.LifecycleRule(
                    rule_priority=1,
                    description="What a broken upload left",
                    tag_status=ecr.TagStatus.UNTAGGED,
                    max_image_age=Duration.days(1),
                ),
                # By number and never by age: an endpoint pulls its image again whenever it scales out.
                ecr.LifecycleRule(
                    rule_priority=2,
                    description="All but the newest",
                    tag_status=ecr.TagStatus.ANY,
                    max_image_count=KEPT_IMAGES,
                ),
            ],
            # In production too: every image can be built again.
            removal_policy=RemovalPolicy.DESTROY,
            empty_on_delete=True,
        )

    def _project(self, asset: assets.Asset, log_group: logs.LogGroup, architecture: str) -> codebuild.CfnProject:
        """The L1 class: the L2 `Project` gives its role more than this build needs, in a policy of its own."""
        image = BUILD_IMAGES[architecture]
        return codebuild.CfnProject(
            self,
            "Project",
            description="Builds the serving container's image",
            service_role=self._build_role(asset, log_group).role_arn,
            source=codebuild.CfnProject.SourceProperty(
                type="S3",
                location=f"{asset.s3_bucket_name}/{asset.s3_object_key}",
                build_spec=json.dumps(BUILD_SPEC),
            ),
            artifacts=codebuild.CfnProject.ArtifactsProperty(type="NO_ARTIFACTS"),
            environment=codebuild.CfnProject.EnvironmentProperty(
                type=image.type,
                image=image.image_id,
                compute_type="BUILD_GENERAL1_SMALL",
                privileged_mode=True,  # Docker's daemon needs it
                environment_variables=[
                    codebuild.CfnProject.EnvironmentVariableProperty(name=name, value=value)
                    for name, value in {
                        "REGISTRY": f"{Aws.ACCOUNT_ID}.dkr.ecr.{Aws.REGION}.{Aws.URL_SUFFIX}",
                        "REPOSITORY": self.repository.repository_uri,
                    }.items()
                ],
            ),
            logs_config=codebuild.CfnProject.LogsConfigProperty(
                cloud_watch_logs=codebuild.CfnProject.CloudWatchLogsConfigProperty(
                    status="ENABLED", group_name=log_group.log_group_name
                )
            ),
            timeout_in_minutes=BUILD_TIMEOUT.to_minutes(),
            queued_timeout_in_minutes=QUEUE_TIMEOUT.to_minutes(),
        )

    def _build_role(self, asset: assets.Asset, log_group: logs.LogGroup) -> iam.Role:
        """May read what it builds, push into one repository and write its log."""
        return iam.Role(
            self,
            "BuildRole",
            description="Builds the serving image",
            # For this account only: else another account could make CodeBuild use our role (confused deputy).
            assumed_by=iam.ServicePrincipal(
                "codebuild.amazonaws.com", conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}}
            ),
            inline_policies={
                "Source": policy(
                    allow_in_s3(
                        ["s3:GetObject", "s3:GetObjectVersion"], [asset.bucket.arn_for_objects(asset.s3_object_key)]
                    )
                ),
                "Push": policy(
                    # A token for the registry, which IAM cannot scope; what it opens is decided by the next statement.
                    allow(["ecr:GetAuthorizationToken"], ["*"]),
                    allow(
                        [
                            "ecr:BatchCheckLayerAvailability",
                            "ecr:BatchGetImage",
                            "ecr:CompleteLayerUpload",
                            "ecr:InitiateLayerUpload",
                            "ecr:PutImage",
                            "ecr:UploadLayerPart",
                        ],
                        [self.repository.repository_arn],
                    ),
                ),
                "Log": policy(allow(WRITE_LOG, [log_group.log_group_arn])),
            },
        )

    def _builder(self, project: codebuild.CfnProject, build_log: logs.LogGroup) -> lambda_.Function:
        """The function behind the custom resource."""
        log_group = self._log_group("BuilderLog")
        return lambda_.Function(
            self,
            "Builder",
            description="Builds the serving image while CloudFormation waits",
            runtime=lambda_.Runtime.PYTHON_3_14,
            architecture=lambda_.Architecture.ARM_64,
            handler="image_build.handler",
            code=lambda_.Code.from_asset(
                str(Path(custom_resources.__file__).parent),
                exclude=["*", "!/image_build.py"],
                ignore_mode=IgnoreMode.GIT,
            ),
            role=self._builder_role(project, build_log, log_group),
            timeout=FUNCTION_TIMEOUT,
            log_group=log_group,
            logging_format=lambda_.LoggingFormat.JSON,
        )

    def _builder_role(
        self, project: codebuild.CfnProject, build_log: logs.LogGroup, own_log: logs.LogGroup
    ) -> iam.Role:
        """May run this project, see whether an image is there, and read what a build said."""
        return iam.Role(
            self,
            "BuilderRole",
            description="Starts builds of the serving image",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            inline_policies={
                "Builds": policy(
                    allow(
                        ["codebuild:BatchGetBuilds", "codebuild:StartBuild", "codebuild:StopBuild"],
                        [project.attr_arn],
                    )
                ),
                "Images": policy(allow(["ecr:DescribeImages"], [self.repository.repository_arn])),
                "BuildLog": policy(allow(["logs:GetLogEvents"], [build_log.log_group_arn])),
                "Log": policy(allow(WRITE_LOG, [own_log.log_group_arn])),
            },
        )

    def _log_group(self, name: str) -> logs.LogGroup:
        return logs.LogGroup(self, name, retention=logs.RetentionDays.ONE_MONTH, removal_policy=RemovalPolicy.DESTROY)
