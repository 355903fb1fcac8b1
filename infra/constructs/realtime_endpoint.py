"""The model and the real-time endpoint that serves it."""

import hashlib
import json
from pathlib import Path
from typing import Any

from aws_cdk import Aws, CfnRule, CfnRuleAssertion, Fn, Stack
from aws_cdk import aws_s3_assets as assets
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra import bucket_layout as layout
from infra import instance_types
from infra.constructs.classifier_function import ClassifierFunction
from infra.constructs.data_bucket import DataBucket
from infra.constructs.inline_role import STREAMS, InlineRole, arn_here
from infra.constructs.monitoring.alarms import Alarms
from infra.constructs.monitoring.metrics import EndpointMetrics
from infra.constructs.registry_image import RegistryImage
from infra.gate.compliance import acknowledge, acknowledge_image
from infra.settings import ROOT
from infra.tables.serving import CaptureSettings, RolloutSettings, ServingSettings
from model.core.archives import archive_digest
from model.core.artifact_digest import VARIABLE

_STREAMS = "SageMaker names the log streams after the variant and its instances, which come and go."
_ALARMS = "CloudFormation ends the names of this stack's alarms at random; their state is no secret."
_NO_ISOLATION = (
    "AWS isolates no serverless container. This one's credentials read one artifact, pull one image and write this "
    "endpoint's log and metrics, nothing else."
)


class RealtimeEndpoint(Construct):
    """One model on one variant, on instances or serverless.

    Model and endpoint configuration cannot be changed in place: they get generated names, so that CloudFormation can
    make the new one before it deletes the old. The artifact is a content-addressed asset, so new bytes are a new model
    and the same bytes are none. The variant's name never changes, because auto scaling is registered under it. The
    endpoint's name is known beforehand: alarms and log group have it before there is an endpoint.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        settings: ServingSettings,
        image: RegistryImage,
        artifact: Path,
        data: DataBucket,
        metrics_namespace: str,
        metrics: EndpointMetrics,
        alarms: Alarms | None,
    ) -> None:
        super().__init__(scope, construct_id)
        self._name, self._settings, self._data = name, settings, data
        self.variant_name = settings.variant_name
        on_instances = settings.kind == "instance"
        asset = self._artifact_asset(artifact)
        # What the container must find, known outside of what it unpacks: it refuses to run anything else.
        digest = {VARIABLE: archive_digest(ROOT / artifact)} if asset else {}
        role = self._role(asset, image)
        model = sagemaker.CfnModel(
            self,
            "Model",
            execution_role_arn=role.role_arn,
            enable_network_isolation=on_instances,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                image=image.uri,
                model_data_url=asset.s3_object_url if asset else None,
                environment={
                    "MODEL_SERVER_MODE": settings.mode,
                    "MODEL_SERVER_METRICS_NAMESPACE": metrics_namespace,
                    "MODEL_SERVER_METRICS_SERVER": name,
                    **digest,
                },
            ),
        )
        acknowledge_image(model, image.uri)
        if not on_instances:
            acknowledge(model, "MODEL_IS_ISOLATED", _NO_ISOLATION)
        config = sagemaker.CfnEndpointConfig(
            self,
            "Config",
            kms_key_id=data.key.key_arn if self._encrypts_volumes else None,
            production_variants=[self._variant(model)],
            data_capture_config=self._capture(settings.capture) if settings.capture else None,
        )
        config_name = config.attr_endpoint_config_name
        going_back = alarms.watch_endpoint(metrics, config_name if on_instances else None) if alarms else []
        names = [{"alarmName": alarm.alarm_name} for alarm in going_back]
        self.endpoint = sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=name,
            endpoint_config_name=config_name,
            # Else every deployment would set the instance count back to its initial value, whatever the load.
            retain_all_variant_properties=True,
            # Else capturing, too, would stay as it was when the endpoint was created.
            exclude_retained_variant_properties=[{"variantPropertyType": "DataCaptureConfig"}]
            if on_instances
            else None,
            deployment_config=self._rollout(settings.rollout, names) if settings.rollout else None,
        )

    def grant_invoke(self, function: ClassifierFunction) -> None:
        """Allow the function to invoke this endpoint, and that of the other kind.

        A stage that changes its kind keeps calling the old endpoint until the new one is there.
        """
        stem = self._name.removesuffix(self._settings.kind)
        arns = [arn_here("sagemaker", f"endpoint/{stem}{kind}") for kind in ("instance", "serverless")]
        function.role.allow("Endpoint", ["sagemaker:InvokeEndpoint"], arns)

    @property
    def _encrypts_volumes(self) -> bool:
        """Whether there are volumes that take a key; the disks of some instance types are encrypted by hardware."""
        return self._settings.kind == "instance" and not instance_types.has_local_storage(self._settings.instance_type)

    def _variant(self, model: sagemaker.CfnModel) -> dict[str, Any]:
        settings, serverless = self._settings, self._settings.serverless
        of_kind: dict[str, Any] = {
            "instanceType": settings.instance_type,
            "initialInstanceCount": settings.initial_instances,
            "containerStartupHealthCheckTimeoutInSeconds": settings.startup_timeout_seconds,
        }
        if settings.kind == "serverless":
            of_kind = {
                "serverlessConfig": {
                    "memorySizeInMb": serverless.memory_mb,
                    "maxConcurrency": serverless.max_concurrency,
                    "provisionedConcurrency": serverless.provisioned_concurrency,
                }
            }
        names = {"variantName": settings.variant_name, "modelName": model.attr_model_name}
        return {**names, "initialVariantWeight": 1, **of_kind}

    def _capture(self, settings: CaptureSettings) -> dict[str, Any]:
        return {
            "enableCapture": True,
            "initialSamplingPercentage": settings.sampling_percent,
            "destinationS3Uri": self._data.bucket.s3_url_for_object(layout.CAPTURED),
            "kmsKeyId": self._data.key.key_arn,
            "captureOptions": [{"captureMode": "Input"}, {"captureMode": "Output"}],
            # So that answers can be read; everything else, images too, is written in base64.
            "captureContentTypeHeader": {"jsonContentTypes": ["application/json"]},
        }

    def _rollout(self, settings: RolloutSettings, alarms: list[dict[str, str]]) -> dict[str, Any]:
        size = {"canary": "canarySize", "linear": "linearStepSize"}.get(settings.strategy)
        share = {size: {"type": "CAPACITY_PERCENT", "value": settings.percent}} if size else {}
        return {
            "blueGreenUpdatePolicy": {
                "trafficRoutingConfiguration": {
                    "type": settings.strategy.upper(),
                    "waitIntervalInSeconds": settings.wait_seconds,
                    **share,
                },
                "terminationWaitInSeconds": settings.bake_seconds,
                "maximumExecutionTimeoutInSeconds": self._settings.rollout_timeout_seconds,
            },
            "autoRollbackConfiguration": {"alarms": alarms},
        }

    def _role(self, asset: assets.Asset | None, image: RegistryImage) -> InlineRole:
        """May fetch one model artifact and its image, and write logs; on instances a transform job runs under it, too.

        The permissions of a role never change, because the instances of the model before need theirs until a deployment
        has replaced them, or is rolled back to them: other permissions (of another artifact or image) are another role,
        and CloudFormation deletes the old one when it deletes the old model.
        """
        stack = Stack.of(self)
        role = InlineRole(self, "Role", service="sagemaker", description="SageMaker endpoint")
        image.grant_pull(role)
        log_groups = {f"/aws/sagemaker/Endpoints/{self._name}": _STREAMS}
        if self._settings.kind == "instance":  # a container with network would have these permissions itself
            log_groups["/aws/sagemaker/TransformJobs"] = STREAMS
            self._data.grant_batch(role)
        role.allow_telemetry(log_groups)
        if asset:
            role.allow_in_s3("Artifact", ["s3:GetObject"], [asset.bucket.arn_for_objects(asset.s3_object_key)])
        if self._encrypts_volumes:
            self._data.grant_volume(role)
        if self._settings.capture:
            self._data.grant_capture(role)
        if self._settings.rollout:  # under this role SageMaker asks how the alarms stand
            # By the beginning of their names: they refer to the configuration, and this to the role.
            named = arn_here("cloudwatch", f"alarm:{stack.stack_name}-*")
            role.allow("Rollout", ["cloudwatch:DescribeAlarms"], [named], because=_ALARMS)
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
