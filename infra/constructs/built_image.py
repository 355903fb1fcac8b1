"""The serving container's own image: built from this repository while the stack is deployed."""

import json
from pathlib import Path

from aws_cdk import Aws, CustomResource, Duration, IgnoreMode
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from infra.constructs.inline_role import WRITE_LOG, InlineRole
from infra.constructs.log_group import log_group
from infra.gate.compliance import acknowledge
from infra.serving_image import DOCKERFILE, SOURCES, image_tag
from programs import image_build

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
# One phase, because CodeBuild runs the next one even when one has failed.
BUILD_SPEC = {
    "version": "0.2",
    "phases": {
        "build": {
            "commands": [
                # One platform, Docker's media types, no attestations: SageMaker refuses image indexes.
                f"docker build --progress plain --provenance=false --file {DOCKERFILE} --tag $REPOSITORY:$IMAGE_TAG .",
                "aws ecr get-login-password | docker login --username AWS --password-stdin $REGISTRY",
                "docker push --quiet $REPOSITORY:$IMAGE_TAG",
            ]
        }
    },
}


class BuiltImage(Construct):
    """The project that builds into a repository, and the resource that makes each deployment build what is missing.

    The image's tag is the hash of what it is made of: the same files are never built twice, and the image of an
    earlier deployment is still there to roll back to. What uses `uri` is created after the image has been built.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, source: Path, architecture: str, repository: ecr.IRepository
    ) -> None:
        super().__init__(scope, construct_id)
        self._repository = repository
        asset = assets.Asset(
            self,
            "Source",
            path=str(source),
            exclude=["*", "!/core", "!/serving", "/serving/*", "!/serving/image", *(f"!/{file}" for file in SOURCES)],
            ignore_mode=IgnoreMode.GIT,
        )
        build_log = log_group(self, "BuildLog", days=30)
        project = self._project(asset, build_log, architecture)
        acknowledge(
            project,
            "AwsSolutions-CB4",
            "The build stores neither artifacts nor a cache, so there is nothing that a key would encrypt.",
        )
        image = CustomResource(
            self,
            "Image",
            resource_type="Custom::ContainerImage",
            service_token=self._builder(project, build_log).function_arn,
            service_timeout=SERVICE_TIMEOUT,
            properties={
                "ProjectName": project.ref,
                "RepositoryName": repository.repository_name,
                "RepositoryUri": repository.repository_uri,
                "Tag": image_tag(source, architecture),
            },
        )
        self.uri = image.get_att_string("ImageUri")

    def _project(self, asset: assets.Asset, log: logs.LogGroup, architecture: str) -> codebuild.CfnProject:
        """The L1 class: the L2 `Project` gives its role more than this build needs, in a policy of its own."""
        image = BUILD_IMAGES[architecture]
        return codebuild.CfnProject(
            self,
            "Project",
            description="Builds the serving container's image",
            service_role=self._build_role(asset, log).role_arn,
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
                    {"name": "REGISTRY", "value": f"{Aws.ACCOUNT_ID}.dkr.ecr.{Aws.REGION}.{Aws.URL_SUFFIX}"},
                    {"name": "REPOSITORY", "value": self._repository.repository_uri},
                ],
            ),
            logs_config={"cloudWatchLogs": {"status": "ENABLED", "groupName": log.log_group_name}},
            timeout_in_minutes=BUILD_TIMEOUT.to_minutes(),
            queued_timeout_in_minutes=QUEUE_TIMEOUT.to_minutes(),
        )

    def _build_role(self, asset: assets.Asset, log: logs.LogGroup) -> InlineRole:
        """May read what it builds, push into one repository and write its log."""
        role = InlineRole(self, "BuildRole", service="codebuild", description="Builds the serving image")
        source = asset.bucket.arn_for_objects(asset.s3_object_key)
        role.allow_in_s3("Source", ["s3:GetObject", "s3:GetObjectVersion"], [source])
        # A token for the registry, which IAM cannot scope; what it opens is decided by the next statement.
        role.allow_any("Push", ["ecr:GetAuthorizationToken"])
        layers = ("BatchCheckLayerAvailability", "InitiateLayerUpload", "UploadLayerPart", "CompleteLayerUpload")
        actions = [f"ecr:{action}" for action in (*layers, "BatchGetImage", "PutImage")]
        role.allow("Push", actions, [self._repository.repository_arn])
        role.allow("Log", WRITE_LOG, [log.log_group_arn])
        return role

    def _builder(self, project: codebuild.CfnProject, build_log: logs.LogGroup) -> lambda_.Function:
        log = log_group(self, "BuilderLog", days=30)
        return lambda_.Function(
            self,
            "Builder",
            description="Builds the serving image while CloudFormation waits",
            runtime=lambda_.Runtime.PYTHON_3_14,
            architecture=lambda_.Architecture.ARM_64,
            handler="image_build.handler",
            code=lambda_.Code.from_asset(
                str(Path(image_build.__file__).parent),
                exclude=["*", "!/image_build.py"],
                ignore_mode=IgnoreMode.GIT,
            ),
            role=self._builder_role(project, build_log, log),
            timeout=FUNCTION_TIMEOUT,
            log_group=log,
            logging_format=lambda_.LoggingFormat.JSON,
        )

    def _builder_role(
        self, project: codebuild.CfnProject, build_log: logs.LogGroup, own_log: logs.LogGroup
    ) -> InlineRole:
        """May run this project, see whether an image is there, and read what a build said."""
        role = InlineRole(self, "BuilderRole", service="lambda", description="Starts builds of the serving image")
        actions = ["codebuild:BatchGetBuilds", "codebuild:StartBuild", "codebuild:StopBuild"]
        role.allow("Builds", actions, [project.attr_arn])
        role.allow("Images", ["ecr:DescribeImages"], [self._repository.repository_arn])
        role.allow("BuildLog", ["logs:GetLogEvents"], [build_log.log_group_arn])
        role.allow("Log", WRITE_LOG, [own_log.log_group_arn])
        return role
