"""The image that the model artifact runs on, as the settings choose it."""

from dataclasses import dataclass

from aws_cdk import Aws
from constructs import Construct

from infra import instance_types
from infra.constructs.built_image import BuiltImage
from infra.settings import ECR_IMAGE_URI, RAY_IMAGE, ROOT, ServingSettings


@dataclass(frozen=True)
class ServingImage:
    """Where an image is, and the repository that a role must be allowed to pull from; both may be tokens."""

    uri: str
    repository_arn: str


def serving_image(scope: Construct, settings: ServingSettings) -> ServingImage:
    """The image of a stage; our own is added to the stack, the others exist already."""
    if settings.image == "own":
        architecture = instance_types.architecture(settings.instance_type)
        built = BuiltImage(scope, "Image", source=ROOT / "model", architecture=architecture)
        return ServingImage(built.uri, built.repository.repository_arn)
    if settings.image == "ray":
        return ServingImage(
            RAY_IMAGE.uri(Aws.REGION, Aws.URL_SUFFIX), RAY_IMAGE.repository_arn(Aws.REGION, Aws.PARTITION)
        )
    uri = ECR_IMAGE_URI.fullmatch(settings.image)
    assert uri is not None  # the settings have been checked
    arn = f"arn:{Aws.PARTITION}:ecr:{uri['region']}:{uri['account']}:repository/{uri['repository']}"
    return ServingImage(settings.image, arn)
