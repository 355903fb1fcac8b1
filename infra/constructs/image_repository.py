"""The repository of the serving image."""

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_ecr as ecr
from constructs import Construct

KEPT_IMAGES = 10


class ImageRepository(ecr.Repository):
    """Immutable tags, scanned on push; keeps the newest images."""

    def __init__(self, scope: Construct, construct_id: str) -> None:
        super().__init__(
            scope,
            construct_id,
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
