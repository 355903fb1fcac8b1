"""The model and the real-time endpoint that serves it."""

import hashlib
import json
from pathlib import Path

from aws_cdk import Aws, CfnRule, CfnRuleAssertion, Fn, Stack
from aws_cdk import aws_s3_assets as assets
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra import instance_types
from infra.constructs.classifier_function import ClassifierFunction
from infra.constructs.data_bucket import DataBucket
from infra.constructs.inline_role import STREAMS, InlineRole
from infra.constructs.registry_image import RegistryImage
from infra.settings import ROOT
from infra.tables.serving import ServingSettings
from model.core.archives import archive_digest
from model.core.artifact_digest import VARIABLE


class RealtimeEndpoint(Construct):
    """One model on one variant.

    Model and endpoint configuration cannot be changed in place: they get generated names, so that CloudFormation can
    make the new one before it deletes the old. The artifact is a content-addressed asset, so new bytes are a new model
    and the same bytes are none. The variant's name never changes, because auto scaling is registered under it.

    Attributes
    ----------
    endpoint, variant_name
        The endpoint, whose `ref` is the ARN, and its only variant.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: ServingSettings,
        image: RegistryImage,
        artifact: Path,
        data: DataBucket,
        metrics_namespace: str,
    ) -> None:
        super().__init__(scope, construct_id)
        self.variant_name = settings.variant_name
        asset = self._artifact_asset(artifact)
        # What the container must find, known outside of what it unpacks: it refuses to run anything else.
        digest = {VARIABLE: archive_digest(ROOT / artifact)} if asset else {}
        # The disks of some instance types are encrypted by their hardware, and SageMaker refuses a key for them.
        key = None if instance_types.has_local_storage(settings.instance_type) else data.key
        role = self._role(asset, image, data, encrypted=key is not None)
        model = sagemaker.CfnModel(
            self,
            "Model",
            execution_role_arn=role.role_arn,
            enable_network_isolation=True,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                image=image.uri,
                model_data_url=asset.s3_object_url if asset else None,
                environment={
                    "MODEL_SERVER_MODE": settings.mode,
                    "MODEL_SERVER_METRICS_NAMESPACE": metrics_namespace,
                    # The endpoint's own name does not exist yet; the stack's tells stages apart, too.
                    "MODEL_SERVER_METRICS_SERVER": Aws.STACK_NAME,
                    **digest,
                },
            ),
        )
        config = sagemaker.CfnEndpointConfig(
            self,
            "Config",
            kms_key_id=key.key_arn if key else None,
            production_variants=[
                sagemaker.CfnEndpointConfig.ProductionVariantProperty(
                    variant_name=settings.variant_name,
                    model_name=model.attr_model_name,
                    instance_type=settings.instance_type,
                    initial_instance_count=settings.initial_instances,
                    initial_variant_weight=1,
                    container_startup_health_check_timeout_in_seconds=settings.startup_timeout_seconds,
                )
            ],
        )
        self.endpoint = sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_config_name=config.attr_endpoint_config_name,
            # Else every deployment would set the instance count back to its initial value, whatever the load.
            retain_all_variant_properties=True,
        )

    def grant_invoke(self, function: ClassifierFunction) -> None:
        """Allow the function to invoke this endpoint."""
        function.role.allow("Endpoint", ["sagemaker:InvokeEndpoint"], [self.endpoint.ref])

    def _role(
        self, asset: assets.Asset | None, image: RegistryImage, data: DataBucket, *, encrypted: bool
    ) -> InlineRole:
        """May fetch one model artifact and its image, and write logs; a transform job runs under it, too.

        The permissions of a role never change, because the instances of the model before need theirs until a deployment
        has replaced them, or is rolled back to them: other permissions (of another artifact or image) are another role,
        and CloudFormation deletes the old one when it deletes the old model.
        """
        role = InlineRole(self, "Role", service="sagemaker", description="SageMaker endpoint")
        image.grant_pull(role)
        generated = (
            "SageMaker names the log group after the endpoint, whose generated name is known only after this role, and "
            "the log streams after instances."
        )
        role.allow_telemetry({"/aws/sagemaker/Endpoints/*": generated, "/aws/sagemaker/TransformJobs": STREAMS})
        data.grant_batch(role)
        if asset:
            role.allow_in_s3("Artifact", ["s3:GetObject"], [asset.bucket.arn_for_objects(asset.s3_object_key)])
        if encrypted:
            data.grant_volume(role)
        stack = Stack.of(self)
        permissions = json.dumps(stack.resolve(role.documents), sort_keys=True)
        digest = hashlib.sha256(permissions.encode()).hexdigest()[:8]
        role.resource.override_logical_id(f"{stack.get_logical_id(role.resource)}{digest}")
        return role

    def _artifact_asset(self, artifact: Path) -> assets.Asset | None:
        """Make the artifact an asset, or forbid the deployment when there is none.

        The template is made all the same: the security checks must see it before there is a model.
        """
        if (ROOT / artifact).is_file():
            return assets.Asset(self, "Artifact", path=str(ROOT / artifact))
        missing = f"No model artifact at {artifact}: run kennel train, then kennel package"
        never = CfnRuleAssertion(assert_=Fn.condition_equals(Aws.REGION, "no artifact"), assert_description=missing)
        CfnRule(self, "ArtifactExists", assertions=[never])
        return None
