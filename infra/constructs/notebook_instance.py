"""A SageMaker notebook instance that stops itself when nobody uses it."""

from pathlib import Path

from aws_cdk import Fn
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra.constructs.data_bucket import DataBucket
from infra.constructs.inline_role import TRAINING_LOG_GROUP, InlineRole, arn_here, with_streams
from infra.gate.compliance import acknowledge
from infra.job_names import job_patterns
from infra.settings import Settings
from programs.notebook_idle import stop_when_idle

IDLE_SCRIPT = Path(stop_when_idle.__file__)
#: How often the idle script looks.
CHECK_MINUTES = 5
#: The newest platform: Amazon Linux 2023, JupyterLab 4. Source: SageMaker API, `PlatformIdentifier`.
PLATFORM = "notebook-al2023-v1"


class NotebookInstance(Construct):
    """The instance, its role and its lifecycle configuration."""

    def __init__(
        self, scope: Construct, construct_id: str, *, settings: Settings, data: DataBucket, training_role: iam.IRole
    ) -> None:
        super().__init__(scope, construct_id)
        notebook = settings.notebook
        assert notebook is not None
        self.role = self._role(settings, data, training_role)
        lifecycle = sagemaker.CfnNotebookInstanceLifecycleConfig(
            self,
            "Lifecycle",
            on_start=[{"content": Fn.base64(_start_script(notebook.idle_minutes))}],
        )
        in_network = notebook.subnet_id is not None
        self.instance = sagemaker.CfnNotebookInstance(
            self,
            "Instance",
            # A fixed name: the role may stop this instance and no other, and is made before it.
            notebook_instance_name=notebook_name(settings),
            instance_type=notebook.instance_type,
            platform_identifier=PLATFORM,
            role_arn=self.role.role_arn,
            volume_size_in_gb=notebook.volume_gb,
            kms_key_id=data.key.key_arn,
            root_access="Disabled",
            direct_internet_access="Disabled" if in_network else "Enabled",
            subnet_id=notebook.subnet_id,
            security_group_ids=list(notebook.security_group_ids) or None,
            instance_metadata_service_configuration={"minimumInstanceMetadataServiceVersion": "2"},
            lifecycle_config_name=lifecycle.attr_notebook_instance_lifecycle_config_name,
        )
        if not in_network:
            reason = "The settings give no network of their own (notebook.subnet_id), so it stands in SageMaker's."
            acknowledge(self.instance, "AwsSolutions-SM1", reason)
            reason = "Without a network of the settings (notebook.subnet_id) this is its only way to AWS."
            acknowledge(self.instance, "AwsSolutions-SM3", reason)

    def _role(self, settings: Settings, data: DataBucket, training_role: iam.IRole) -> InlineRole:
        """May train, tune and look at the results, call the deployed function, and stop its own instance.

        It may not deploy: what can deploy a stack can do anything that CloudFormation can.
        """
        role = InlineRole(self, "Role", service="sagemaker", description="Notebook instance")
        data.grant_notebook(role)
        data.grant_volume(role)
        kinds = ("TrainingJob", "HyperParameterTuningJob")
        role.allow(
            "Jobs",
            [f"sagemaker:{verb}{kind}" for verb in ("Create", "Describe", "Stop") for kind in kinds]
            + ["sagemaker:AddTags", "sagemaker:ListTrainingJobsForHyperParameterTuningJob"],
            [
                arn_here("sagemaker", f"{kind}/{pattern}")
                for kind in ("training-job", "hyper-parameter-tuning-job")
                for pattern in job_patterns(settings)
            ],
            because="Its user names jobs and data sets; the prefix is this stage's alone.",
        )
        role.allow_any("Jobs", ["sagemaker:ListTrainingJobs", "sagemaker:ListHyperParameterTuningJobs"])
        passed = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
        role.allow("Jobs", ["iam:PassRole"], [training_role.role_arn], passed)
        stacks = [settings.stack_name(kind) for kind in ("storage", "training", "inference")]
        role.allow(
            "Look",
            ["cloudformation:DescribeStacks"],
            [arn_here("cloudformation", f"stack/{name}/*") for name in stacks],
            because="CloudFormation adds a random part to the ARN of a stack.",
        )
        streams = "SageMaker names the log streams."
        read = ["logs:DescribeLogStreams", "logs:GetLogEvents"]
        role.allow("Look", read, with_streams(TRAINING_LOG_GROUP), because=streams)
        function = [arn_here("lambda", f"function:{settings.stack_name('inference')}-*")]
        generated = "The function's name is generated, in a stack that is deployed after this one."
        role.allow("Classify", ["lambda:InvokeFunctionUrl"], function, because=generated)
        by_url = {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}
        role.allow("Classify", ["lambda:InvokeFunction"], function, by_url)
        itself = arn_here("sagemaker", f"notebook-instance/{notebook_name(settings)}")
        role.allow("Itself", ["sagemaker:StopNotebookInstance"], [itself])
        write = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]
        role.allow("Itself", write, with_streams("/aws/sagemaker/NotebookInstances"), because=streams)
        return role


def _start_script(idle_minutes: int) -> str:
    """What the instance runs, as root, whenever it starts."""
    return f"""#!/bin/bash
set -eu
install -d /usr/local/lib/notebook
cat > /usr/local/lib/notebook/stop_when_idle.py <<'END-OF-PROGRAM'
{IDLE_SCRIPT.read_text(encoding="utf-8")}END-OF-PROGRAM
systemd-run --unit=stop-when-idle --on-active={CHECK_MINUTES}min --on-unit-active={CHECK_MINUTES}min \\
    python3 /usr/local/lib/notebook/stop_when_idle.py {idle_minutes * 60}
"""


def notebook_name(settings: Settings) -> str:
    return f"{settings.project}-{settings.stage}-notebook"
