"""A SageMaker notebook instance that stops itself when nobody uses it."""

from pathlib import Path

from aws_cdk import Aws, Fn
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra.constructs.data_bucket import DataBucket
from infra.constructs.execution_roles import notebook_data
from infra.constructs.execution_roles import sagemaker as sagemaker_principal
from infra.constructs.policies import allow, policy
from infra.job_names import job_patterns
from infra.settings import Settings
from programs.notebook_idle import stop_when_idle

IDLE_SCRIPT = Path(str(stop_when_idle.__file__))
#: How often the idle script looks.
CHECK_MINUTES = 5
#: SageMaker's limit for a lifecycle script, in base64.
MAX_SCRIPT_CHARACTERS = 16384
#: The newest platform: Amazon Linux 2023, JupyterLab 4. Source: SageMaker API, `PlatformIdentifier`.
PLATFORM = "notebook-al2023-v1"


class NotebookInstance(Construct):
    """The instance, its role and its lifecycle configuration.

    Attributes
    ----------
    instance, role
    """

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
            on_start=[
                sagemaker.CfnNotebookInstanceLifecycleConfig.NotebookInstanceLifecycleHookProperty(
                    content=Fn.base64(render_start_script(notebook.idle_minutes))
                )
            ],
        )
        in_network = notebook.subnet_id is not None
        self.instance = sagemaker.CfnNotebookInstance(
            self,
            "Instance",
            # A fixed name: the role may stop this instance and no other, and is made before it.
            notebook_instance_name=_name(settings),
            instance_type=notebook.instance_type,
            platform_identifier=PLATFORM,
            role_arn=self.role.role_arn,
            volume_size_in_gb=notebook.volume_gb,
            kms_key_id=data.key.key_arn,
            root_access="Disabled",
            direct_internet_access="Disabled" if in_network else "Enabled",
            subnet_id=notebook.subnet_id,
            security_group_ids=list(notebook.security_group_ids) or None,
            instance_metadata_service_configuration=(
                sagemaker.CfnNotebookInstance.InstanceMetadataServiceConfigurationProperty(
                    minimum_instance_metadata_service_version="2"
                )
            ),
            lifecycle_config_name=lifecycle.attr_notebook_instance_lifecycle_config_name,
        )

    def _role(self, settings: Settings, data: DataBucket, training_role: iam.IRole) -> iam.Role:
        """May train, tune and look at the results, call the deployed function, and stop its own instance.

        It may not deploy: what can deploy a stack can do anything that CloudFormation can.
        """
        here = f"arn:{Aws.PARTITION}:sagemaker:{Aws.REGION}:{Aws.ACCOUNT_ID}"
        jobs = [
            f"{here}:{kind}/{pattern}"
            for kind in ("training-job", "hyper-parameter-tuning-job")
            for pattern in job_patterns(settings)
        ]
        log_groups = f"arn:{Aws.PARTITION}:logs:{Aws.REGION}:{Aws.ACCOUNT_ID}:log-group:/aws/sagemaker"
        function = (
            f"arn:{Aws.PARTITION}:lambda:{Aws.REGION}:{Aws.ACCOUNT_ID}:function:{settings.stack_name('inference')}-*"
        )
        stacks = [
            f"arn:{Aws.PARTITION}:cloudformation:{Aws.REGION}:{Aws.ACCOUNT_ID}:stack/{settings.stack_name(kind)}/*"
            for kind in ("storage", "training", "inference")
        ]
        return iam.Role(
            self,
            "Role",
            description="Notebook instance",
            assumed_by=sagemaker_principal(),
            inline_policies={
                "Data": notebook_data(data.bucket, data.key),
                "Volume": policy(
                    # SageMaker hands the key on to the instance's volume by a grant.
                    allow(["kms:CreateGrant"], [data.key.key_arn], {"Bool": {"kms:GrantIsForAWSResource": "true"}}),
                    allow(["kms:DescribeKey"], [data.key.key_arn]),
                ),
                "Jobs": policy(
                    allow(
                        [
                            f"sagemaker:{verb}{kind}"
                            for verb in ("Create", "Describe", "Stop")
                            for kind in ("TrainingJob", "HyperParameterTuningJob")
                        ]
                        + ["sagemaker:AddTags", "sagemaker:ListTrainingJobsForHyperParameterTuningJob"],
                        jobs,
                    ),
                    # IAM knows no resources for listings.
                    allow(["sagemaker:ListTrainingJobs", "sagemaker:ListHyperParameterTuningJobs"], ["*"]),
                    allow(
                        ["iam:PassRole"],
                        [training_role.role_arn],
                        {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
                    ),
                ),
                "Look": policy(
                    allow(["cloudformation:DescribeStacks"], stacks),
                    allow(
                        ["logs:DescribeLogStreams", "logs:GetLogEvents"],
                        [f"{log_groups}/TrainingJobs{part}" for part in ("", ":log-stream:*")],
                    ),
                ),
                "Classify": policy(
                    allow(["lambda:InvokeFunctionUrl"], [function]),
                    allow(["lambda:InvokeFunction"], [function], {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}),
                ),
                "Itself": policy(
                    allow(["sagemaker:StopNotebookInstance"], [f"{here}:notebook-instance/{_name(settings)}"]),
                    allow(
                        ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"],
                        [f"{log_groups}/NotebookInstances{part}" for part in ("", ":log-stream:*")],
                    ),
                ),
            },
        )


def render_start_script(idle_minutes: int) -> str:
    """What the instance runs, as root, whenever it starts.

    Raises
    ------
    ValueError
        When it has become longer than SageMaker takes.
    """
    script = f"""#!/bin/bash
set -eu
install -d /usr/local/lib/notebook
cat > /usr/local/lib/notebook/stop_when_idle.py <<'END-OF-PROGRAM'
{IDLE_SCRIPT.read_text(encoding="utf-8")}END-OF-PROGRAM
systemd-run --unit=stop-when-idle --on-active={CHECK_MINUTES}min --on-unit-active={CHECK_MINUTES}min \\
    python3 /usr/local/lib/notebook/stop_when_idle.py {idle_minutes * 60}
"""
    if len(script.encode()) * 4 / 3 > MAX_SCRIPT_CHARACTERS:
        raise ValueError(f"The lifecycle script is longer than SageMaker takes ({MAX_SCRIPT_CHARACTERS} in base64).")
    return script


def _name(settings: Settings) -> str:
    return f"{settings.project}-{settings.stage}-notebook"
