"""Everything that differs between stages, read from ``environments/<stage>.toml``.

The tables below are the reference: names, ranges, defaults, and what must fit together. An absent optional table
switches its feature off. Importing this module needs neither the CDK nor AWS, so the command line reads it too.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import PlainValidator, StrictBool

from infra import instance_types
from infra.container_images import ECR_IMAGE_URI, AccountId, ContainerImage, url_suffix
from infra.tables.alarms import AlarmSettings, DriftSettings
from infra.tables.cost_guard import CostGuardSettings
from infra.tables.function import FunctionSettings, LogRetentionDays
from infra.tables.gate import GateSettings
from infra.tables.security import AuditSettings, SecuritySettings
from infra.tables.serving import ServingSettings
from infra.tables.tuning import TuningSettings
from infra.validation import SettingsError, Table, between, matching, one_of, read_table

ENVIRONMENTS = Path(__file__).parent / "environments"
#: The project's root: relative paths in the settings start here.
ROOT = Path(__file__).parents[1]


def _scalar(value: Any) -> Any:
    if not isinstance(value, str | int | float):
        raise ValueError(f"must be a text, a number, true or false, not {value!r}")
    return value


Days = Annotated[int, between(1, 3650)]


@dataclass(frozen=True, kw_only=True)
class StorageSettings(Table):
    """The bucket that holds data sets, code and training outputs, and its key."""

    #: Whether bucket and key stay behind when the stack is deleted. Also protects the stack from deletion.
    retain: StrictBool
    noncurrent_version_days: Days = 30
    access_log_days: Days = 90
    #: Training outputs of this age move to Glacier Instant Retrieval; absent: they stay in the standard class.
    archive_training_outputs_after_days: Days | None = None
    #: Checkpoints are for trainings that are interrupted: they go when they are this old, and old versions of them a
    #: day after they were replaced or deleted.
    checkpoint_days: Days = 7


@dataclass(frozen=True, kw_only=True)
class Ec2TrainingSettings(Table):
    """Training on an EC2 instance of our own. The stack holds a launch template; nothing runs until somebody trains."""

    #: Four vCPUs and 16 GB: the smallest of the t family with room for the framework and some thousand decoded
    #: images. A GPU by one word: "g4dn.xlarge".
    instance_type: Annotated[str, one_of(instance_types.ec2, "t3.xlarge")] = "t3.xlarge"
    #: The image alone needs about half of it; deleted with the instance.
    volume_gb: Annotated[int, between(75, 16384)] = 100
    #: For the training itself. The instance has `SHUTDOWN_MARGIN_SECONDS` more and is then shut down, whatever happens.
    max_runtime_seconds: Annotated[int, between(60, 28 * 86400)] = 3600
    #: Spare capacity at a lower price, which AWS may take back with two minutes' notice; asked for at each launch.
    spot: StrictBool = False
    #: Public parameter that names the image, resolved whenever an instance starts: the newest build of AWS's Deep
    #: Learning AMI with the PyTorch of `TrainingSettings.image`. It has CUDA, and runs on types without a GPU as well.
    #: Source: AWS Deep Learning AMIs Developer Guide, "Finding the ID of a DLAMI".
    image_parameter: Annotated[
        str,
        matching(
            r"/aws/service/deeplearning/ami/(x86_64|arm64)/[a-z0-9.-]+/latest/ami-id",
            "the public parameter of a Deep Learning AMI (/aws/service/deeplearning/ami/…/latest/ami-id)",
        ),
    ] = "/aws/service/deeplearning/ami/x86_64/oss-nvidia-driver-gpu-pytorch-2.13-amazon-linux-2023/latest/ami-id"

    #: For starting up, fetching the inputs and uploading the outputs.
    SHUTDOWN_MARGIN_SECONDS: ClassVar[int] = 1800

    @property
    def shutdown_minutes(self) -> int:
        """The instance's age, in minutes, at which it is shut down even when its program hangs."""
        return math.ceil((self.max_runtime_seconds + self.SHUTDOWN_MARGIN_SECONDS) / 60)

    def conflicts(self) -> Iterator[str]:
        kind, given = self.instance_type, self.image_parameter.split("/")[5]
        if (needed := instance_types.architecture(kind)) != given:
            yield f"instance_type: {kind} is an {needed} machine, but image_parameter names an {given} image"


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Table):
    """What a training job runs on; the command line puts it into CreateTrainingJob."""

    instance_type: Annotated[str, one_of(instance_types.training, "ml.m5.large")] = "ml.m5.xlarge"
    instance_count: Annotated[int, between(1, 20)] = 1
    volume_gb: Annotated[int, between(1, 16384)] = 30
    #: Encrypt what the instances of one training send to each other (`EnableInterContainerTrafficEncryption`). Matters
    #: with more than one instance only; it makes their training slower and so dearer.
    encrypt_traffic: StrictBool = True
    #: SageMaker's own limit is 28 days.
    max_runtime_seconds: Annotated[int, between(60, 28 * 86400)] = 3600
    image: ContainerImage = field(
        default_factory=lambda: ContainerImage(repository="pytorch", tag="2.13-cpu-amzn2023-sagemaker")
    )
    #: Spare capacity at a lower price, which AWS may take back: the job then waits, and goes on from its checkpoint.
    spot: StrictBool = False
    #: With spot: for waiting and running together; absent: twice max_runtime_seconds.
    max_wait_seconds: Annotated[int, between(60, 28 * 86400)] | None = None
    #: Passed to train.py as `--name value`; those given on the command line win.
    hyperparameters: Mapping[str, Annotated[str | int | float | bool, PlainValidator(_scalar)]] = field(
        default_factory=dict
    )
    tuning: TuningSettings = field(default_factory=TuningSettings)
    #: Of what trainings and the notebook log. SageMaker's groups are the account's: one that has a retention keeps it.
    log_retention_days: LogRetentionDays = 90
    #: `kennel train --on ec2`; absent: no launch template.
    ec2: Ec2TrainingSettings | None = None

    @property
    def stopping_condition(self) -> dict[str, int]:
        """How long a job may take, as CreateTrainingJob takes it."""
        if not self.spot:
            return {"MaxRuntimeInSeconds": self.max_runtime_seconds}
        longest = min(2 * self.max_runtime_seconds, 28 * 86400)
        return {
            "MaxRuntimeInSeconds": self.max_runtime_seconds,
            "MaxWaitTimeInSeconds": self.max_wait_seconds or longest,
        }

    def conflicts(self) -> Iterator[str]:
        kind, given = self.instance_type, self.image.architecture
        if (needed := instance_types.architecture(kind)) != given:
            yield f"instance_type: {kind} is an {needed} machine, but image.architecture is {given}"
        if self.max_wait_seconds is not None:
            if not self.spot:
                yield "max_wait_seconds: only goes with spot = true"
            elif self.max_wait_seconds < self.max_runtime_seconds:
                yield (
                    f"max_wait_seconds: {self.max_wait_seconds} is less than max_runtime_seconds "
                    f"({self.max_runtime_seconds}), which it includes"
                )


@dataclass(frozen=True, kw_only=True)
class NotebookSettings(Table):
    """A SageMaker notebook instance, billed by the hour while it runs; it stops itself when nobody uses it."""

    instance_type: Annotated[str, one_of(instance_types.notebook, "ml.t3.medium")] = "ml.t3.medium"
    volume_gb: Annotated[int, between(5, 16384)] = 20
    #: Stopped after so long without a running cell, a kernel or terminal in use, or a change of a document.
    idle_minutes: Annotated[int, between(10, 1440)] = 60
    #: The instance's network. Both or neither; with them it has no other way to the Internet than this network's.
    subnet_id: Annotated[str, matching(r"subnet-[0-9a-f]{8,17}", "a subnet id")] | None = None
    security_group_ids: tuple[Annotated[str, matching(r"sg-[0-9a-f]{8,17}", "a security group id")], ...] = ()

    def conflicts(self) -> Iterator[str]:
        if (self.subnet_id is None) != (not self.security_group_ids):
            yield "subnet_id: subnet_id and security_group_ids belong together, set both or neither"


@dataclass(frozen=True, kw_only=True)
class Settings(Table):
    """One stage."""

    stage: Annotated[str, matching(r"[a-z][a-z0-9]{1,15}", "a stage name (2 to 16 lower-case letters or digits)")]
    project: Annotated[
        str, matching(r"[a-z][a-z0-9]{1,23}", "a project name (2 to 24 lower-case letters or digits)")
    ] = "kennel"
    #: Both or neither; without them the stacks go wherever the credentials point.
    account: AccountId | None = None
    region: Annotated[str, matching(r"[a-z]{2,4}(-[a-z]+)+-\d", "a region such as eu-west-1")] | None = None
    storage: StorageSettings
    training: TrainingSettings = TrainingSettings()
    serving: ServingSettings = field(default_factory=ServingSettings)
    function: FunctionSettings = field(default_factory=FunctionSettings)
    #: Absent: no notebook instance.
    notebook: NotebookSettings | None = None
    #: Absent: no alarms.
    alarms: AlarmSettings | None = None
    #: Absent: no alarm on what `kennel drift --publish` sends.
    drift: DriftSettings | None = None
    #: Absent: no budget, and nothing is stopped.
    cost_guard: CostGuardSettings | None = None
    #: What examines the templates, and what of it is accepted.
    gate: GateSettings = field(default_factory=GateSettings)
    #: Absent: no permissions boundary.
    security: SecuritySettings | None = None
    #: Absent: no role for audits.
    audit: AuditSettings | None = None

    def conflicts(self) -> Iterator[str]:
        if (self.account is None) != (self.region is None):
            yield "account: account and region belong together, set both or neither"
        if self.serving.rollout and not self.alarms:
            yield "serving.rollout: goes back by alarms; add the table [alarms]"
        if self.drift and not (self.alarms and self.serving.capture):
            yield "drift: looks at captured requests, and pages; add the tables [serving.capture] and [alarms]"
        if self.cost_guard:
            yield from self._guard_conflicts(self.cost_guard)
        uri = ECR_IMAGE_URI.fullmatch(self.serving.image)
        if uri and uri["suffix"] != url_suffix(uri["region"]):
            yield f"serving.image: hosts in {uri['region']} end in {url_suffix(uri['region'])}, not in {uri['suffix']}"
        if self.region is None:
            return
        if uri and uri["region"] != self.region:
            yield (
                f"serving.image: is in {uri['region']}, but region is {self.region}; SageMaker pulls images of its own "
                "region only"
            )
        if missing := self.training.image.missing_in(self.region):
            yield f"region: {missing}; or set training.image.account to an account that has it"

    def _guard_conflicts(self, guard: CostGuardSettings) -> Iterator[str]:
        if not (guard.email or self.alarms):
            yield "cost_guard.email: nobody would hear of the costs; set it, or add the table [alarms]"
        if guard.idle_endpoint == "minimum" and not self.serving.scaling:
            yield 'cost_guard.idle_endpoint: "minimum" is that of serving.scaling, which is absent; "keep" or "delete"'
        if guard.notebook_hours and not self.notebook:
            yield "cost_guard.notebook_hours: there is no [notebook]"
        limit = self.training.ec2 and self.training.ec2.shutdown_minutes / 60
        if guard.training_hours and not limit:
            yield "cost_guard.training_hours: there is no [training.ec2]"
        elif guard.training_hours and limit and guard.training_hours < limit:
            yield (
                f"cost_guard.training_hours: {guard.training_hours} is less than the {limit:g} hours that "
                "training.ec2.max_runtime_seconds and its margin allow"
            )

    @property
    def artifact(self) -> str:
        """Path of the model artifact that is deployed, relative to the project's root."""
        return self.serving.artifact or f"build/{self.stage}/model.tar.gz"

    @property
    def endpoint_name(self) -> str:
        """Name of the endpoint: fixed, because the alarms that name it, and by which it rolls back, exist before it."""
        return f"{self.project}-{self.stage}-{self.serving.kind}"

    def stack_name(self, kind: str) -> str:
        """CloudFormation name of the stack `kind` (storage, training or inference)."""
        return f"{self.project}-{self.stage}-{kind}"


def stages(directory: Path = ENVIRONMENTS) -> list[str]:
    """Names of the stages that have a settings file."""
    return sorted(path.stem for path in directory.glob("*.toml"))


def load(stage: str, directory: Path = ENVIRONMENTS) -> Settings:
    """Read and check the settings of a stage.

    A SettingsError says that there is no such stage, the file is not TOML, or all that is wrong with the settings.
    """
    if stage not in stages(directory):
        raise SettingsError(f"There is no stage {stage!r}. Stages: {', '.join(stages(directory))}.")
    path = directory / f"{stage}.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path.name} is not valid TOML: {error}.") from error
    problems = ["stage: is the name of the file, leave it out"] if "stage" in table else []
    try:
        settings = read_table(Settings, table | {"stage": stage})
    except SettingsError as error:
        problems += str(error).splitlines()
    if problems:
        raise SettingsError("\n  ".join([f"{path.name} has {len(problems)} problem(s):", *problems]))
    return settings
