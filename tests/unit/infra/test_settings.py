"""Settings: what is in the repository loads, and every mistake in a file is reported at once."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.settings import ROOT, Settings, load, stages
from infra.validation import SettingsError, read_table

MINIMAL = "[storage]\nretain = false\n"
PLACE = "account = '111122223333'\nregion = '{}'\n"
ECR = "111122223333.dkr.ecr.eu-west-1.amazonaws.com"
OWN_TRAINING_IMAGE = "[training.image]\nrepository = 'mine'\ntag = '1'\naccount = '111122223333'\n"


@pytest.fixture
def write(tmp_path: Path):
    """Write a stage's file and load it."""

    def write_and_load(text: str) -> Settings:
        (tmp_path / "test.toml").write_text(text, encoding="utf-8")
        return load("test", directory=tmp_path)

    return write_and_load


@pytest.fixture
def problems(write):
    """The lines after the heading of what is wrong with a file."""

    def of(text: str) -> list[str]:
        with pytest.raises(SettingsError) as error:
            write(text)
        heading, *lines = str(error.value).splitlines()
        assert heading == f"test.toml has {len(lines)} problem(s):"
        return [line.strip() for line in lines]

    return of


def test_the_repository_has_three_stages_and_all_load():
    assert {name: load(name).storage.retain for name in stages()} == {"dev": False, "local": False, "prod": True}
    assert [load(name).stage for name in stages()] == stages()


def test_a_file_needs_to_say_only_what_has_no_safe_default(write):
    settings = write(MINIMAL)
    assert (settings.project, settings.stage) == ("kennel", "test")
    assert settings.stack_name("storage") == "kennel-test-storage"
    assert settings.artifact == "build/test/model.tar.gz"
    assert settings.function.url_auth == "AWS_IAM"
    absent = (settings.serving.scaling, settings.training.ec2, settings.notebook, settings.function.scaling)
    assert absent == (None, None, None, None)
    with pytest.raises(FrozenInstanceError):
        settings.storage.retain = True


@pytest.mark.parametrize(("seconds", "minutes"), [(60, 31), (61, 32), (3600, 90)])
def test_the_time_limit_of_an_instance_is_longer_than_the_trainings(write, seconds, minutes):
    ec2 = write(f"{MINIMAL}[training.ec2]\nmax_runtime_seconds = {seconds}\n").training.ec2
    assert (ec2.shutdown_minutes, ec2.instance_type, ec2.spot) == (minutes, "t3.xlarge", False)


def test_loading_needs_no_cdk():
    program = (
        "import sys, infra.settings as s; image = s.load('dev').training.image; image.uri('eu-west-1');"
        "sys.exit(bool({'aws_cdk', 'jsii', 'boto3', 'sagemaker'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("region", "registry"),
    [
        ("eu-west-1", "763104351884.dkr.ecr.eu-west-1.amazonaws.com"),
        ("cn-north-1", "727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn"),
        ("us-isob-east-1", "094389454867.dkr.ecr.us-isob-east-1.sc2s.sgov.gov"),
    ],
)
def test_awss_images_are_in_the_account_and_partition_of_the_region(region, registry):
    assert load("dev").training.image.uri(region) == f"{registry}/pytorch:2.13-cpu-amzn2023-sagemaker"


def test_no_address_is_made_up_for_a_region_without_awss_images(write, problems):
    missing = "AWS gives out no pytorch:2.13-cpu-amzn2023-sagemaker in eu-nowhere-1; regions: af-south-1, "
    with pytest.raises(SettingsError, match=missing):
        load("dev").training.image.uri("eu-nowhere-1")
    (line,) = problems(PLACE.format("eu-nowhere-1") + MINIMAL)
    assert line.startswith(f"region: {missing}")
    assert line.endswith("; or set training.image.account to an account that has it")
    settings = write(PLACE.format("eu-nowhere-1") + MINIMAL + OWN_TRAINING_IMAGE)
    assert settings.training.image.uri("eu-nowhere-1") == "111122223333.dkr.ecr.eu-nowhere-1.amazonaws.com/mine:1"


@pytest.mark.parametrize(
    ("region", "partition"), [("eu-west-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-east-1", "aws-us-gov"),
                              ("us-iso-east-1", "aws-iso"), ("eusc-de-east-1", "aws-eusc")],
)  # fmt: skip
def test_stages_and_invokers_can_be_in_every_partition(write, region, partition):
    arn = f"arn:{partition}:iam::111122223333:role/caller"
    settings = write(f"{PLACE.format(region)}{MINIMAL}[function]\ninvokers = ['{arn}']\n")
    assert (settings.region, settings.function.invokers) == (region, (arn,))


def test_scaling_target_is_per_minute_and_keeps_the_margin(write):
    scaling = (
        "[serving.scaling]\nmin_instances = 1\nmax_instances = 2\nmax_rps_per_instance = 7.5\nsafety_factor = 0.8\n"
    )
    assert write(MINIMAL + scaling).serving.scaling.invocations_per_instance_and_minute == pytest.approx(360)


@pytest.mark.parametrize("name", ["production", "", "../dev", "/etc/passwd", "dev.toml", "DEV"])
def test_a_stage_is_one_of_those_that_have_a_file_and_no_path(name):
    with pytest.raises(SettingsError, match=rf"^There is no stage '{name}'\. Stages: dev, local, prod\.$"):
        load(name)


def test_broken_toml_names_the_file_and_the_line(write, tmp_path):
    with pytest.raises(SettingsError, match=r"^test\.toml is not valid TOML: .*line 2"):
        write("[storage]\nretain = maybe\n")
    (tmp_path / "test.toml").write_bytes(b'project = "h\xfctte"\n')
    with pytest.raises(SettingsError, match="is not valid TOML"):
        load("test", directory=tmp_path)


def test_every_problem_is_reported_at_once(problems):
    text = """
stage = "other"
projekt = "dogs"
account = "123"
[storage]
noncurrent_version_days = 0
[training]
instance_type = "ml.m5.hughe"
instance_count = "two"
image = "pytorch"
[serving]
variant_name = "my variant"
initial_instances = 5
[serving.scaling]
min_instances = 3
max_instances = 2
max_rps_per_instance = 0
[function]
timeout_seconds = 5
invokers = ["somebody"]
url_auth = "none"
[training.tuning]
max_jobs = 1
"""
    assert sorted(problems(text)) == [
        "account: '123' is not an account id of twelve digits",
        "function.invokers[0]: 'somebody' is not the ARN of an IAM role or user",
        "function.url_auth: should be 'AWS_IAM' or 'NONE', not 'none'",
        "projekt: unknown setting; did you mean project?",
        "serving.scaling.max_rps_per_instance: should be greater than or equal to 0.02, not 0",
        "serving.variant_name: 'my variant' is not a variant name",
        "stage: is the name of the file, leave it out",
        "storage.noncurrent_version_days: should be greater than or equal to 1, not 0",
        "storage.retain: missing",
        "training.image: should be a table, not 'pytorch'",
        "training.instance_count: should be a valid integer, not 'two'",
        "training.instance_type: 'ml.m5.hughe' is not known; did you mean ml.m5.large or ml.m5.xlarge or "
        "ml.m5.4xlarge?",
        "training.tuning.parallel_jobs: 2 is more than max_jobs (1)",  # two fields that contradict each other
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[serving]\nimage = 'onw'\n", "serving.image: 'onw' is not \"own\" or the URI of an image in ECR"),
        *((f"[serving]\nimage = '{image}'\n", f"serving.image: '{image}' is not")
          for image in ("docker.io/python:3", f"{ECR}/r", f"{ECR}/R:1", f"{ECR}/r:1 ", f"{ECR}/r@sha256:1", "")),
        ("[serving.image]\nrepository = 'runtime'\n", "serving.image: should be a valid string, not a table"),
        ("[storage.deep]\nx = 1\n", "storage.deep: unknown setting; allowed: retain, noncurrent_version_days, "),
        ("[function]\nprovisoned_concurency = 1\n", "function.provisoned_concurency: unknown setting; did you mean p"),
        ("[serving]\nscaling = true\n", "serving.scaling: should be a table, not True"),
        ("serving = []\n", "serving: should be a table, not []"),
        ("[function]\ninvokers = 'x'\n", "function.invokers: should be a list, not 'x'"),
        ("[function]\nmemory_mb = true\n", "function.memory_mb: should be a valid integer, not True"),
        ("[function]\nmemory_mb = 512.0\n", "function.memory_mb: should be a valid integer, not 512.0"),
        ("[function]\nmemory_mb = 2020-01-01\n", "function.memory_mb: should be a valid integer, not datetime.date"),
        ("[function]\nmemory_mb = 64\n", "function.memory_mb: should be greater than or equal to 128, not 64"),
        ("[function]\nlog_retention_days = 8\n", "function.log_retention_days: should be 1, 3, 5, 7, 14, 30, 60, "),
        ("[training]\nspot = 1\n", "training.spot: should be a valid boolean, not 1"),
        ("project = 'Kennel'\n", "project: 'Kennel' is not a project name (2 to 24 lower-case letters or digits)"),
        ("project = \"kennel\\n\"\n", "project: 'kennel\\n' is not a project name"),
        ("[serving]\ninstance_type = 'm5.large'\n", "serving.instance_type: 'm5.large' is not known; did you mean ml."),
        ("[serving]\ninstance_type = 'qqq'\n", "serving.instance_type: 'qqq' is not known; allowed are names suc"),
        ("[training.image]\ntag = 'x'\n", "training.image.repository: missing"),
        ("[training.tuning]\nstrategy = 'grid'\n", "training.tuning.strategy: should be 'bayesian', 'random' or 'hyp"),
        ("[training.tuning]\nbatch_sizes = [32, 1]\n", "training.tuning.batch_sizes[1]: should be greater than or eq"),
        ("[[training.tuning.numbers]]\nname = 'x'\nmin = 1\n", "training.tuning.numbers[0].max: missing"),
        ("[[training.tuning.numbers]]\nnmae = 'x'\n", "training.tuning.numbers[0].nmae: unknown setting; did you mea"),
        ("[[training.tuning.choices]]\nname = 'X'\nvalues = ['a']\n", "training.tuning.choices[0].name: 'X' is not a "),
        ("[training.hyperparameters]\nlr = [1]\n", "training.hyperparameters.lr: must be a text, a number, true or"),
        ("[training]\nhyperparameters = 3\n", "training.hyperparameters: should be a table, not 3"),
        ("[serving.scaling]\nmin_instances = 1\nmax_instances = 2\nmax_rps_per_instance = nan\n", "serving.scaling.m"),
        ('[training.ec2]\ninstance_type = "ml.m5.large"', "training.ec2.instance_type: 'ml.m5.large' is not known"),
        ('[training.ec2]\nimage_parameter = "ami-1"', "training.ec2.image_parameter: 'ami-1' is not the public param"),
        ('[notebook]\nsecurity_group_ids = ["all"]', "notebook.security_group_ids[0]: 'all' is not a security group "),
    ],
)  # fmt: skip
def test_a_bad_value_is_named_with_what_is_allowed(problems, text, problem):
    assert any(line.startswith(problem) for line in problems(text)), problems(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[training.ec2]\ninstance_type = "t4g.xlarge"', "training.ec2.instance_type: t4g.xlarge is an arm64 machine"),
        ('[notebook]\nsubnet_id = "subnet-0123456789abcdef0"',
         "notebook.subnet_id: subnet_id and security_group_ids belong"),
        ('[notebook]\nsecurity_group_ids = ["sg-0123456789abcdef0"]',
         "notebook.subnet_id: subnet_id and security_group_id"),
        (f"[serving]\nimage = '{ECR}.cn/runtime:7'\n",
         "serving.image: hosts in eu-west-1 end in amazonaws.com, not in amazonaws.com.cn"),
        ("[function]\nprovisioned_concurrency = 5\nreserved_concurrency = 4\n",
         "function.reserved_concurrency: 4 is less than the provisioned concurrency (5)"),
        ("[function]\nprovisioned_concurrency = 2\nreserved_concurrency = 4\n"
         "[function.scaling]\nmin_provisioned = 1\nmax_provisioned = 9\n",
         "function.reserved_concurrency: 4 is less than the provisioned concurrency (9)"),
        ("[function]\nprovisioned_concurrency = 0\n[function.scaling]\nmin_provisioned = 1\nmax_provisioned = 9\n",
         "function.scaling: needs provisioned_concurrency as its starting point"),
        ("[function]\nprovisioned_concurrency = 10\n[function.scaling]\nmin_provisioned = 1\nmax_provisioned = 9\n",
         "function.provisioned_concurrency: 10 is outside scaling.min_provisioned to scaling.max_provisioned (1 to"),
        ("[function.scaling]\nmin_provisioned = 3\nmax_provisioned = 2\n",
         "function.scaling.min_provisioned: 3 is more than max_provisioned (2)"),
        ("[function]\ntimeout_seconds = 25\n",
         "function.timeout_seconds: 25 must be more than fetch_timeout_seconds + endpoint_timeout_seconds (25)"),
        ("[serving]\ninitial_instances = 1\n"
         "[serving.scaling]\nmin_instances = 2\nmax_instances = 3\nmax_rps_per_instance = 1\n",
         "serving.initial_instances: 1 is outside scaling.min_instances to scaling.max_instances (2 to 3)"),
        ("[serving.scaling]\nmin_instances = 3\nmax_instances = 2\nmax_rps_per_instance = 1\n",
         "serving.scaling.min_instances: 3 is more than max_instances (2)"),
        ("[training.image]\nrepository = 'own'\ntag = '1'\narchitecture = 'arm64'\n",
         "training.instance_type: ml.m5.xlarge is an x86_64 machine, but image.architecture is arm64"),
        ("[training]\nmax_wait_seconds = 7200\n", "training.max_wait_seconds: only goes with spot = true"),
        ("[training]\nspot = true\nmax_wait_seconds = 600\n",
         "training.max_wait_seconds: 600 is less than max_runtime_seconds (3600), which it includes"),
        ("[training.tuning]\nmax_jobs = 1\n", "training.tuning.parallel_jobs: 2 is more than max_jobs (1)"),
        ("[training.tuning]\nlearning_rate_min = 0.1\n",
         "training.tuning.learning_rate_min: 0.1 must be less than learning_rate_max (0.1)"),
        ("[training.tuning]\nbatch_sizes = []\n", "training.tuning.batch_sizes: 1 to 30 different sizes"),
        ("[training.tuning]\nbatch_sizes = [8, 8]\n", "training.tuning.batch_sizes: 1 to 30 different sizes"),
        ("[[training.tuning.choices]]\nname = 'batch_size'\nvalues = ['8']\n",
         "training.tuning.numbers, choices: more than one range for batch-size"),
        ("[[training.tuning.choices]]\nname = 'mode'\nvalues = ['a', 'a']\n",
         "training.tuning.choices[0].values: 1 to 30 different texts"),
        ("[[training.tuning.numbers]]\nname = 'x'\nmin = 0\nmax = 1\nscale = 'logarithmic'\n",
         "training.tuning.numbers[0].min: 0 must be more than 0 on a logarithmic scale"),
        ("[[training.tuning.numbers]]\nname = 'x'\nmin = 0\nmax = inf\n",
         "training.tuning.numbers[0].min: 0 must be less than max (inf), and both finite"),
        ("[[training.tuning.numbers]]\nname = 'x'\nmin = 0.5\nmax = 2\ninteger = true\n",
         "training.tuning.numbers[0].integer: 0.5 and 2 are not whole numbers"),
        ("[function]\nurl_auth = 'NONE'\n", "function.public_reason: missing; an unsigned URL needs the reason"),
        ("[function]\npublic_reason = 'A reason that is long enough.'\n",
         'function.public_reason: only goes with url_auth = "NONE"'),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_together_are_refused(problems, text, problem):
    (line,) = problems(MINIMAL + text)
    assert line.startswith(problem)


@pytest.mark.parametrize(
    ("top", "problem"),
    [
        ("account = '111122223333'\n", "account: account and region belong together, set both or neither"),
        ("region = 'eu-west-1'\n", "account: account and region belong together, set both or neither"),
        (
            PLACE.format("us-east-1"),
            "serving.image: is in eu-west-1, but region is us-east-1; SageMaker pulls images of ",
        ),
    ],
)
def test_a_stage_is_in_one_place_with_its_image(problems, top, problem):
    (line,) = problems(f"{top}{MINIMAL}[serving]\nimage = '{ECR}/runtime:7'\n")
    assert line.startswith(problem)


@pytest.mark.parametrize(
    "image",
    ["own", f"{ECR}/runtime:7", f"{ECR}/team/runtime@sha256:{'0' * 64}",
     "111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn/runtime:1"],
)  # fmt: skip
def test_serving_image_is_ours_or_an_address_and_goes_with_any_instance_type(write, image):
    text = f"{MINIMAL}[serving]\nimage = '{image}'\ninstance_type = 'ml.c7g.large'\n"
    assert write(text).serving.image == image


def test_hyperparameters_keep_their_types(write):
    given = {"epochs": 3, "lr": 0.1, "architecture": "resnet18", "flip": True}
    text = "[training.hyperparameters]\nepochs = 3\nlr = 0.1\narchitecture = 'resnet18'\nflip = true\n"
    read = write(MINIMAL + text).training.hyperparameters
    assert [(name, value, type(value)) for name, value in read.items()] == [(n, v, type(v)) for n, v in given.items()]


def test_spot_training_waits_twice_as_long_as_it_runs_unless_told_otherwise(write):
    assert write(MINIMAL).training.stopping_condition == {"MaxRuntimeInSeconds": 3600}
    for extra, wait in (("", 7200), ("max_wait_seconds = 9000\n", 9000)):
        waiting = {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": wait}
        assert write(f"{MINIMAL}[training]\nspot = true\n{extra}").training.stopping_condition == waiting


toml_values = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)


@given(table=st.dictionaries(st.sampled_from([*Settings.__dataclass_fields__, "other"]), toml_values, max_size=5))
def test_no_table_makes_the_reader_stumble(table):
    with suppress(SettingsError):
        assert read_table(Settings, table).storage is not None
