"""The images of the containers: where they are in whatever region a stack is deployed to, or how they get there."""

from dataclasses import dataclass

from aws_cdk import Aws, CfnMapping, CfnRule, CfnRuleAssertion, Duration, Fn, RemovalPolicy, Stack
from aws_cdk import aws_ecr as ecr
from constructs import Construct

from infra import instance_types
from infra.constructs.built_image import BuiltImage
from infra.constructs.inline_role import InlineRole
from infra.container_images import ECR_IMAGE_URI, ContainerImage, image_accounts
from infra.gate.compliance import acknowledge_image
from infra.settings import ROOT
from infra.tables.serving import ServingSettings


@dataclass(frozen=True)
class RegistryImage:
    """Where an image is, and its repository; both may be tokens."""

    uri: str
    repository_arn: str

    def grant_pull(self, role: InlineRole) -> None:
        """Allow to pull the image."""
        # A token for the registry, which IAM cannot scope; what it opens is decided by the next statement.
        role.allow_any("Image", ["ecr:GetAuthorizationToken"])
        actions = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        role.allow("Image", actions, [self.repository_arn])
        acknowledge_image(role.resource, self.repository_arn)


def image_repository(scope: Construct, construct_id: str) -> ecr.Repository:
    """Make the repository of the serving image: immutable tags, scanned on push; it keeps the ten newest images."""
    leftovers = ecr.LifecycleRule(
        rule_priority=1,
        description="What a broken upload left",
        tag_status=ecr.TagStatus.UNTAGGED,
        max_image_age=Duration.days(1),
    )
    # By number and never by age: an endpoint pulls its image again whenever it scales out.
    oldest = ecr.LifecycleRule(
        rule_priority=2, description="All but the newest", tag_status=ecr.TagStatus.ANY, max_image_count=10
    )
    return ecr.Repository(
        scope,
        construct_id,
        image_scan_on_push=True,
        image_tag_mutability=ecr.TagMutability.IMMUTABLE,
        # Public packages and nothing else: there is no secret in them that a key of our own would keep.
        encryption=ecr.RepositoryEncryption.AES_256,
        lifecycle_rules=[leftovers, oldest],
        # In production too: every image can be built again.
        removal_policy=RemovalPolicy.DESTROY,
        empty_on_delete=True,
    )


def serving_image(scope: Construct, settings: ServingSettings, repository: ecr.IRepository) -> RegistryImage:
    """Return the image of a stage; our own is built into the repository by the stack, the others exist already."""
    if settings.image == "own":
        architecture = instance_types.architecture(settings.instance_type)
        built = BuiltImage(scope, "Image", source=ROOT / "model", architecture=architecture, repository=repository)
        return RegistryImage(built.uri, repository.repository_arn)
    uri = ECR_IMAGE_URI.fullmatch(settings.image)
    assert uri is not None  # the settings have been checked
    arn = f"arn:{Aws.PARTITION}:ecr:{uri['region']}:{uri['account']}:repository/{uri['repository']}"
    return RegistryImage(settings.image, arn)


def training_image(scope: Construct, image: ContainerImage) -> RegistryImage:
    """Find an image in the region of the stack; outside the regions that have it the stack refuses to be deployed."""
    account = image.account or _account_of_awss_images(Stack.of(scope))
    return RegistryImage(
        f"{account}.dkr.ecr.{Aws.REGION}.{Aws.URL_SUFFIX}/{image.repository}:{image.tag}",
        f"arn:{Aws.PARTITION}:ecr:{Aws.REGION}:{account}:repository/{image.repository}",
    )


def _account_of_awss_images(stack: Stack) -> str:
    accounts = image_accounts()
    assertion = CfnRuleAssertion(
        assert_=Fn.condition_contains(list(accounts), Aws.REGION),
        assert_description="AWS gives out no Deep Learning Containers in this region: choose another one, or name an "
        "image of your own in training.image",
    )
    CfnRule(stack, "RegionHasImages", assertions=[assertion])
    table = {region: {"id": account} for region, account in accounts.items()}
    return CfnMapping(stack, "ImageAccounts", mapping=table).find_in_map(Aws.REGION, "id")
