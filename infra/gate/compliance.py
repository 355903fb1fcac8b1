"""The security gate of every synthesis: the rule packs, our own rules, and every exception from them.

`cdk synth` fails on any finding that is not acknowledged below. An acknowledgement is for one finding at one resource
and gives its reason; it ends up in ``cdk.out/validation-report.json`` beside the finding. One that matches nothing any
more fails the synthesis too, so that no exception outlives its cause.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from aws_cdk import Acknowledgment, App, CloudFormationValidatePlugin, ValidationRuleSource, Validations
from cdk_nag import AwsSolutionsChecks

from infra.bucket_layout import BATCH_INPUT, BATCH_OUTPUT, TRAINING_PREFIXES
from infra.job_names import job_patterns
from infra.settings import Settings

RULES = Path(__file__).with_name("rules.guard")
# The name of a plugin prefixes the rules it reports: only so does the CDK itself match finding and acknowledgement,
# and write both into its report.
AWS_SOLUTIONS = "AwsSolutions"
OWN_RULES = "CloudFormation-Validate"


class ComplianceError(Exception):
    """An acknowledgement matches no finding."""


@dataclass(frozen=True)
class Acknowledgement:
    """Why one finding at one resource is all right.

    Attributes
    ----------
    path
        Path of the CloudFormation resource in the construct tree. Not of a parent: that would cover its siblings too.
    finding
        Plugin and rule, with the finding in brackets where the rule can have several at one resource.
    """

    path: str
    finding: str
    reason: str


def acknowledgements(settings: Settings) -> list[Acknowledgement]:
    """List the exceptions of a stage."""
    training_role = f"{settings.stack_name('training')}/Role/Resource"
    model_role = f"{settings.stack_name('inference')}/Endpoint/Role/Resource"
    bucket = f"{settings.stack_name('storage')}:ExportsOutputFnGetAttDataBucketE6B0FAA8Arn3FF3A9FF"
    log_groups = "arn:<AWS::Partition>:logs:<AWS::Region>:<AWS::AccountId>:log-group:/aws/sagemaker"
    resources = [
        *(
            (
                training_role,
                f"{bucket}/{prefix}/*",
                "A job names its own objects below its prefixes; the rest of the bucket stays closed.",
            )
            for prefix in TRAINING_PREFIXES
        ),
        *(
            (
                model_role,
                f"{bucket}/{prefix}/*",
                "A transform job reads pictures and writes answers of any name below these; the rest stays closed.",
            )
            for prefix in (BATCH_INPUT, BATCH_OUTPUT)
        ),
        *(
            (
                role,
                f"{log_groups}/{group}:log-stream:*",
                "SageMaker names the log streams after the jobs, in the one group that it uses for all of them.",
            )
            for role, group in ((training_role, "TrainingJobs"), (model_role, "TransformJobs"))
        ),
        (
            model_role,
            f"{log_groups}/Endpoints/*",
            "SageMaker names the log group after the endpoint, whose generated name is known only after this role.",
        ),
        (
            model_role,
            f"{log_groups}/Endpoints/*:log-stream:*",
            "SageMaker names the log streams after instances.",
        ),
        *(
            (
                role,
                "*",
                "ecr:GetAuthorizationToken and cloudwatch:PutMetricData know no resources; the latter is held to "
                "SageMaker's namespaces. ANY_RESOURCE_ONLY_WHERE_IAM_KNOWS_NO_OTHER keeps every other action out.",
            )
            for role in (training_role, model_role)
        ),
    ]
    exceptions = [_wildcard(path, resource, reason) for path, resource, reason in resources]
    exceptions += _training_instance(settings, bucket) + _notebook(settings, bucket)
    if settings.serving.image == "own":
        build = f"{settings.stack_name('inference')}/Image"
        exceptions += [
            Acknowledgement(
                f"{build}/BuildRole/Resource",
                f"{AWS_SOLUTIONS}::AwsSolutions-IAM5[Resource::*]",
                "ecr:GetAuthorizationToken knows no resources; what the token opens is one repository.",
            ),
            Acknowledgement(
                f"{build}/Project",
                f"{AWS_SOLUTIONS}::AwsSolutions-CB4",
                "The build stores neither artifacts nor a cache, so there is nothing that a key would encrypt.",
            ),
        ]
    if settings.function.public_reason:
        alias = f"{settings.stack_name('inference')}/Classifier/Live"
        exceptions += [
            Acknowledgement(f"{alias}/{path}", f"{OWN_RULES}::{rule}", settings.function.public_reason)
            for path, rule in (
                ("FunctionUrl/Resource", "FUNCTION_URL_IS_SIGNED"),
                ("invoke-function-url", "FUNCTION_HAS_NAMED_CALLERS"),
                ("invoke-function", "FUNCTION_HAS_NAMED_CALLERS"),
            )
        ]
    return exceptions


def _training_instance(settings: Settings, bucket: str) -> list[Acknowledgement]:
    """Exceptions of the EC2 trainings, where the stage has them."""
    if settings.training.ec2 is None:
        return []
    instance = f"{settings.stack_name('training')}/Instance"
    role = f"{instance}/Role/Resource"
    return [
        *(
            _wildcard(
                role,
                f"{bucket}/{prefix}/*",
                "An instance trains jobs of any name below the prefixes of the training jobs; the rest stays closed.",
            )
            for prefix in TRAINING_PREFIXES
        ),
        _wildcard(
            role,
            "*",
            "IAM knows no resources for Session Manager's channels, the way to an instance that has no open port. "
            "ANY_RESOURCE_ONLY_WHERE_IAM_KNOWS_NO_OTHER keeps every other action out.",
        ),
        Acknowledgement(
            f"{instance}/Network/Vpc",
            f"{AWS_SOLUTIONS}::AwsSolutions-VPC7",
            "Nothing in this network can be reached: there is no inbound rule, and no instance between two trainings. "
            "Flow logs would record what an instance fetches, which its own log and the bucket's have.",
        ),
    ]


def _notebook(settings: Settings, bucket: str) -> list[Acknowledgement]:
    """Exceptions of the notebook instance, where the stage has one."""
    if settings.notebook is None:
        return []
    notebook = f"{settings.stack_name('training')}/Notebook"
    role = f"{notebook}/Role/Resource"
    here = "<AWS::Region>:<AWS::AccountId>"
    log_groups = f"arn:<AWS::Partition>:logs:{here}:log-group:/aws/sagemaker"
    names = "Its user names jobs and data sets; the prefix is this stage's alone."
    exceptions = [
        *(_wildcard(role, f"{bucket}/{prefix}/*", names) for prefix in TRAINING_PREFIXES),
        *(
            _wildcard(role, f"arn:<AWS::Partition>:sagemaker:{here}:{kind}/{pattern}", names)
            for kind in ("training-job", "hyper-parameter-tuning-job")
            for pattern in job_patterns(settings)
        ),
        _wildcard(
            role,
            f"arn:<AWS::Partition>:lambda:{here}:function:{settings.stack_name('inference')}-*",
            "The function's name is generated, in a stack that is deployed after this one.",
        ),
        *(
            _wildcard(
                role,
                f"arn:<AWS::Partition>:cloudformation:{here}:stack/{settings.stack_name(kind)}/*",
                "CloudFormation adds a random part to the ARN of a stack.",
            )
            for kind in ("storage", "training", "inference")
        ),
        *(
            _wildcard(role, f"{log_groups}/{group}:log-stream:*", "SageMaker names the log streams.")
            for group in ("TrainingJobs", "NotebookInstances")
        ),
        _wildcard(role, "*", "IAM knows no resources for listing jobs."),
    ]
    if settings.notebook.subnet_id is None:
        exceptions.append(
            Acknowledgement(
                f"{notebook}/Instance",
                f"{AWS_SOLUTIONS}::AwsSolutions-SM1",
                "The settings give no network of their own (notebook.subnet_id), so it stands in SageMaker's.",
            )
        )
        exceptions.append(
            Acknowledgement(
                f"{notebook}/Instance",
                f"{AWS_SOLUTIONS}::AwsSolutions-SM3",
                "Without a network of the settings (notebook.subnet_id) this is its only way to AWS.",
            )
        )
    return exceptions


def _wildcard(role: str, resource: str, reason: str) -> Acknowledgement:
    """Why a role may have a wildcard in a resource."""
    return Acknowledgement(role, f"{AWS_SOLUTIONS}::AwsSolutions-IAM5[Resource::{resource}]", reason)


def add_checks(app: App, exceptions: Sequence[Acknowledgement] = ()) -> None:
    """Make every synthesis of the app run the rules, but for the exceptions."""
    Validations.of(app).add_plugins(AwsSolutionsChecks(app), _template_rules())
    for exception in exceptions:
        construct: Any = app
        for name in exception.path.split("/"):
            construct = construct.node.find_child(name)
        Validations.of(construct).acknowledge(Acknowledgment(id=exception.finding, reason=exception.reason))


@cache  # compiling the rules takes longer than the rest of a synthesis
def _template_rules() -> CloudFormationValidatePlugin:
    """Our rules beside CloudFormation's own (schemas, deprecated runtimes and the like)."""
    own_rules = ValidationRuleSource(name="kennel", content=RULES.read_text(encoding="utf-8"))
    return CloudFormationValidatePlugin(guard_rules=[own_rules])


def require_used(exceptions: Sequence[Acknowledgement], assembly: Path) -> None:
    """Refuse exceptions for which the synthesis into the folder `assembly` had no use.

    Raises
    ------
    ComplianceError
        Naming them. Not while findings are open: their message comes first, and it is the CDK that prints it.
    """
    report = json.loads((assembly / "validation-report.json").read_text(encoding="utf-8"))["pluginReports"]
    if any(plugin["violations"] for plugin in report):
        return
    used = {
        (suppressed["acknowledgedAt"], suppressed["acknowledgedId"])
        for plugin in report
        for suppressed in plugin.get("suppressedViolations", ())
    }
    unused = [f"{e.path}: {e.finding}" for e in exceptions if (e.path, e.finding) not in used]
    if unused:
        raise ComplianceError(
            "\n  ".join(
                ["Acknowledged findings that do not occur (remove them from infra/gate/compliance.py):", *unused]
            )
        )
