"""What a training program finds: SageMaker's /opt/ml, its variables and its command line, without a container.

Every instance has a folder that stands for /opt/ml. Where it cannot be mounted there, the text ``/opt/ml`` in
hyperparameters, environment variables and arguments is replaced by its path. Instances have no names here
that others could look up: they are all on this machine, and meet at a port of its own for each job.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.containers import mounts, python
from emulator.containers.mounts import OPT_ML
from emulator.platform.awsapi import Payload
from emulator.sagemaker.runs import MAX_REASON_CHARACTERS, JobFailed

# What the SDK writes and runs.
_SCRIPTS = frozenset({".sh", ".py", ".json"})
# Its script that sets the SM_* variables gives them no other value than these constants: algo-1 and 7777.
_MEETING_PLACE = re.compile(r"^(SM_MASTER_ADDR|SM_MASTER_PORT) = .*$", re.MULTILINE)
_TORCHRUN = Path(__file__).with_name("torchrun.py")
#: Hyperparameters that speak to the container's toolkit and not to the program.
_TOOLKIT_PREFIX = "sagemaker_"
#: Those that ask the toolkit for another way to start the program: MPI, a parameter server, SageMaker's libraries.
_LAUNCHER = re.compile(r"sagemaker_(?!torch_distributed_)\w+_enabled")
#: INFO, as SageMaker's toolkit has it.
_LOG_LEVEL = "20"


@dataclass(frozen=True)
class Cluster:
    """The instances of one job and where they meet."""

    hosts: tuple[str, ...]
    master_port: int
    gpus: int

    @property
    def meeting_place(self) -> dict[str, str | int]:
        return {"SM_MASTER_ADDR": "127.0.0.1", "SM_MASTER_PORT": self.master_port}

    @property
    def cpus_each(self) -> int:
        """CPUs an instance may think it has; together the instances do not have more than this machine."""
        return max(1, (os.cpu_count() or 1) // len(self.hosts))


class TrainingContainer:
    """One instance's folders, below its `directory`, and its variables and command line."""

    def __init__(self, job: Payload, cluster: Cluster, host: str, directory: Path) -> None:
        self.host = host
        self.root = directory / "ml"
        self._python = directory / "python"
        self._job = job
        self._cluster = cluster
        self._checkpoints: str = job.get("CheckpointConfig", {}).get("LocalPath", f"{OPT_ML}/checkpoints")
        self.hyperparameters = {name: self.reroot(value) for name, value in (job.get("HyperParameters") or {}).items()}
        self.channels = {channel["ChannelName"]: channel for channel in job.get("InputDataConfig", [])}

    def path(self, *parts: str) -> Path:
        return self.root.joinpath(*parts)

    def seen(self, *parts: str) -> Path:
        """Where the program finds a path below /opt/ml."""
        return mounts.seen(self.root).joinpath(*parts)

    def reroot(self, text: str) -> str:
        """Replace ``/opt/ml``, where it is a path of its own or begins one, by what the program finds in its place."""
        return _replace(text, self.seen())

    def outside(self, path: str) -> Path:
        """Where a path of the program lies, for everybody else."""
        below = Path(path)
        return self.root / below.relative_to(OPT_ML) if below.is_relative_to(OPT_ML) else below

    def inside(self, path: Path) -> bool:
        """Whether links leave a path of ``/opt/ml`` there: elsewhere they lead to what only the server sees."""
        return not path.is_relative_to(self.root) or path.resolve().is_relative_to(self.root.resolve())

    def files(self, folder: Path) -> list[Path]:
        """List the files below a folder that the program left."""
        found = folder.rglob("*") if self.inside(folder) else ()
        return [path for path in found if path.is_file() and self.inside(path)]

    def said(self, name: str, errors: str = "strict") -> str:
        """Read the beginning of what the program wrote to a file in ``output``, however long it is."""
        if not ((path := self.path("output", name)).is_file() and self.inside(path)):
            return ""
        with path.open(encoding="utf-8", errors=errors) as file:
            return file.read(MAX_REASON_CHARACTERS)

    @property
    def checkpoints(self) -> Path:
        return self.outside(self._checkpoints)

    def make_folders(self) -> None:
        for parts in (("input", "config"), ("input", "data"), ("model",), ("output", "data"), ("code",)):
            self.path(*parts).mkdir(parents=True, exist_ok=True)
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        python.create(self._python)
        for name, content in (
            ("hyperparameters.json", self.hyperparameters),
            ("resourceconfig.json", self._resource_config()),
            ("inputdataconfig.json", self._input_data_config()),
        ):
            self.path("input", "config", name).write_text(json.dumps(content))
        if (hook := self._job.get("DebugHookConfig")) is not None:
            text = json.dumps({"LocalPath": f"{OPT_ML}/output/tensors", **hook})
            self.path("input", "config", "debughookconfig.json").write_text(self.reroot(text))

    def _resource_config(self) -> Payload:
        instance_type = self._job["ResourceConfig"]["InstanceType"]
        group, hosts = "homogeneousCluster", list(self._cluster.hosts)
        return {
            "current_host": self.host,
            "current_instance_type": instance_type,
            "current_group_name": group,
            "hosts": hosts,
            "instance_groups": [{"instance_group_name": group, "instance_type": instance_type, "hosts": hosts}],
            "network_interface_name": "lo",
        }

    def _input_data_config(self) -> Payload:
        config: Payload = {}
        for name, channel in self.channels.items():
            source = channel["DataSource"]["S3DataSource"]
            config[name] = {
                "TrainingInputMode": "File",
                "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
                "RecordWrapperType": "None",
                **({"ContentType": channel["ContentType"]} if "ContentType" in channel else {}),
            }
        return config

    def environment(self, temporary: Path, credentials: Mapping[str, str]) -> dict[str, str]:
        given = {name: self.reroot(value) for name, value in (self._job.get("Environment") or {}).items()}
        # What a program cannot find out here as in a container: names of hosts, a mount, its share of CPUs.
        stand_ins = {"SM_CHECKPOINT_DIR": self.reroot(self._checkpoints), "SM_NUM_CPUS": self._cluster.cpus_each}
        if "DebugHookConfig" in self._job:
            stand_ins["SMDEBUG_CONFIG_FILE_PATH"] = str(self.seen("input", "config", "debughookconfig.json"))
        variables = {
            **credentials,
            "PYTHONPATH": str(self.seen("code")),
            "TRAINING_JOB_NAME": self._job["TrainingJobName"],
            "TRAINING_JOB_ARN": self._job["TrainingJobArn"],
            **({} if self._cluster.gpus else {"CUDA_VISIBLE_DEVICES": ""}),
            **{name: str(value) for name, value in (self._cluster.meeting_place | stand_ins).items()},
            **({} if self.entry_point else self._toolkit_variables()),
            **given,
        }
        return python.environment(self._python, temporary, self._job.get("EnableNetworkIsolation", False), variables)

    def _toolkit_variables(self) -> dict[str, str]:
        """The ``SM_*`` variables of SageMaker's training toolkit; an entry point of the job's own goes without them."""
        resource_config, user = self._resource_config(), self.user_parameters()
        channels = {name: self.seen("input", "data", name) for name in self.channels}
        values: dict[str, Any] = {
            "SM_MODEL_DIR": self.seen("model"),
            "SM_OUTPUT_DIR": self.seen("output"),
            "SM_OUTPUT_DATA_DIR": self.seen("output", "data"),
            "SM_INPUT_DIR": self.seen("input"),
            "SM_INPUT_CONFIG_DIR": self.seen("input", "config"),
            "SM_MODULE_DIR": self.toolkit_parameter("submit_directory") or self.seen("code"),
            "SM_MODULE_NAME": (self.toolkit_parameter("program") or "").removesuffix(".py"),
            "SM_USER_ENTRY_POINT": self.toolkit_parameter("program"),
            "SM_HPS": user,
            "SM_USER_ARGS": self.user_arguments(),
            "SM_CHANNELS": sorted(self.channels),
            "SM_HOSTS": resource_config["hosts"],
            "SM_CURRENT_HOST": self.host,
            "SM_CURRENT_INSTANCE_TYPE": resource_config["current_instance_type"],
            "SM_CURRENT_INSTANCE_GROUP": resource_config["current_group_name"],
            "SM_NETWORK_INTERFACE_NAME": resource_config["network_interface_name"],
            "SM_RESOURCE_CONFIG": resource_config,
            "SM_INPUT_DATA_CONFIG": self._input_data_config(),
            "SM_NUM_GPUS": self._cluster.gpus,
            "SM_LOG_LEVEL": _decode(self.hyperparameters.get(f"{_TOOLKIT_PREFIX}container_log_level", _LOG_LEVEL)),
            # Signs other than letters stay. A shell drops what is no name of a variable then, as dash does on AWS.
            **{f"SM_CHANNEL_{name.upper()}": path for name, path in channels.items()},
            **{f"SM_HP_{name.upper()}": value for name, value in user.items()},
        }
        more = {"hyperparameters": user, "channel_input_dirs": channels, "job_name": self._job["TrainingJobName"]}
        values["SM_TRAINING_ENV"] = {name.removeprefix("SM_").lower(): value for name, value in values.items()} | more
        values |= {name.removeprefix("SM_"): value for name, value in self._cluster.meeting_place.items()}
        return {name: value if isinstance(value, str) else _text(value) for name, value in values.items()}

    def toolkit_parameter(self, name: str) -> str | None:
        """A hyperparameter that speaks to the toolkit, such as ``submit_directory``: where the program is packed."""
        value = self.hyperparameters.get(_TOOLKIT_PREFIX + name)
        return None if value is None else str(_decode(value))

    def user_parameters(self) -> dict[str, Any]:
        """The hyperparameters for the program, decoded from JSON where they are JSON."""
        return {
            name: _decode(value)
            for name, value in self.hyperparameters.items()
            if not name.startswith((_TOOLKIT_PREFIX, "_tuning_objective_metric"))
        }

    def user_arguments(self) -> list[str]:
        """``--name value`` for each of them, ``-n value`` for names of one letter, as SageMaker's toolkit does."""
        return [
            text
            for name, value in sorted(self.user_parameters().items())
            for text in (f"-{name}" if len(name) == 1 else f"--{name}", _argument(value))
        ]

    @property
    def entry_point(self) -> list[str]:
        """The job's own first process, in place of the image's, which runs SageMaker's toolkit; empty for that."""
        algorithm = self._job["AlgorithmSpecification"]
        command = algorithm.get("ContainerEntrypoint", [])
        return [*command, *algorithm.get("ContainerArguments", [])] if command else []

    def command(self) -> list[str]:
        if self.entry_point:
            return mounts.command_in(self.root, [self.reroot(part) for part in self.entry_point])
        program = self.toolkit_parameter("program")
        if program is None:
            raise JobFailed(
                "ClientError: the job names no program. The local AWS runs no images: give the hyperparameters "
                "sagemaker_program and sagemaker_submit_directory, or a ContainerEntrypoint."
            )
        path = self.path("code", program)
        if not path.is_file():
            present = ", ".join(sorted(p.name for p in self.path("code").iterdir())) or "nothing"
            raise JobFailed(f"ClientError: the program {program} is not in the source directory, which has: {present}.")
        for name, value in self.hyperparameters.items():
            if _LAUNCHER.fullmatch(name) and _decode(value):
                raise JobFailed(f"ClientError: the local AWS has no {name}: it starts programs by Python or torchrun.")
        interpreter, launcher = shlex.quote(str(self._python / "bin" / "python")), self._torchrun()
        package = path.suffix != ".sh" and self.path("code", "setup.py").is_file()
        if launcher and (package or path.suffix != ".py"):
            raise JobFailed(f"ClientError: torchrun starts a Python script, and {program} is a package or a command.")
        if path.suffix != ".py" and not package:
            path.chmod(0o777)
            return mounts.command_in(self.root, ["/bin/sh", "-c", shlex.join([f"./{program}", *self.user_arguments()])])
        # The toolkit joins all of it into one text and hands that to a shell, which interprets it.
        start = ["-m", program.removesuffix(".py")] if package else [*map(shlex.quote, launcher), program]
        line = " ".join([interpreter, *start, *self.user_arguments()])
        if wanted := " ." * package + " -r requirements.txt" * self.path("code", "requirements.txt").is_file():
            line = f"{interpreter} -m pip install{wanted} && {line}"
        return mounts.command_in(self.root, ["/bin/sh", "-c", line])

    def _torchrun(self) -> list[str]:
        """What Python is given before the script where the job asks for torchrun: the toolkit's arguments."""
        if not _decode(self.hyperparameters.get("sagemaker_torch_distributed_enabled", "false")):
            return []
        hosts = self._cluster.hosts
        processes = self.toolkit_parameter("mpi_num_of_processes_per_host") or str(self._cluster.gpus or 1)
        # Where to meet also for one host: two jobs would meet at torchrun's default port.
        address, port = (str(value) for value in self._cluster.meeting_place.values())
        return [
            "-P", str(_TORCHRUN), "--nnodes", str(len(hosts)), "--nproc_per_node", processes,
            "--master_addr", address, "--master_port", port, "--node_rank", str(hosts.index(self.host)),
        ]  # fmt: skip

    def adapt_drivers(self) -> None:
        """Let the scripts that the job's entry point names find ``/opt/ml`` and the other instances.

        SageMaker's SDK sends an entry point as a channel of scripts that have the path and the name ``algo-1`` written
        in them. The channels with the caller's own program and data are left as they are.
        """
        entry, places = " ".join(self.entry_point), self._cluster.meeting_place
        for name in sorted(set(re.findall(rf"{OPT_ML}/input/data/([\w.-]+)/", entry)) & self.channels.keys()):
            for script in self.path("input", "data", name).rglob("*"):
                if script.suffix in _SCRIPTS and script.is_file():
                    # As bytes: a caller's own entry point need not be UTF-8, and its line ends are its own.
                    text = self.reroot(script.read_bytes().decode(errors="surrogateescape"))
                    text = _MEETING_PLACE.sub(lambda found: f"{found[1]} = {places[found[1]]!r}", text)
                    script.write_bytes(text.encode(errors="surrogateescape"))


def synced(job: Payload) -> list[tuple[str, str]]:
    """Say what is copied to S3, and where to: the tensors of SageMaker's debugger, and what TensorBoard reads."""
    names = (("DebugHookConfig", "tensors", "debug"), ("TensorBoardOutputConfig", "tensorboard", "tensorboard"))
    asked = [(job[member], f"{OPT_ML}/output/{local}", there) for member, local, there in names if member in job]
    end = f"{job['TrainingJobName']}/{{}}-output".format
    return [(to.get("LocalPath", at), f"{to['S3OutputPath'].rstrip('/')}/{end(what)}") for to, at, what in asked]


def _replace(text: str, root: Path) -> str:
    return re.sub(rf"{OPT_ML}(?![\w.-])", lambda _: str(root), text)


def _decode(value: str) -> Any:
    """Hyperparameters are JSON, or bare text from callers that do not know it."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def _argument(value: Any) -> str:
    """A decoded hyperparameter as the toolkit writes it on the command line: as Python prints most values."""
    if isinstance(value, dict):
        return ",".join(f"{name}={item}" for name, item in sorted(value.items()))
    return "" if value is None else str(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Path):
        return str(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)  # paths are texts there
