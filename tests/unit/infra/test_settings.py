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


@pytest.fixture
def write(tmp_path: Path):
    """Write a stage's file and load it."""

    def write_and_load(text: str, stage: str = "test") -> Settings:
        (tmp_path / f"{stage}.toml").write_text(text, encoding="utf-8")
        return load(stage, directory=tmp_path)

    return write_and_load


def problems(error: pytest.ExceptionInfo[SettingsError]) -> list[str]:
    """The lines after the heading."""
    heading, *lines = str(error.value).splitlines()
    assert heading == f"test.toml has {len(lines)} problem(s):"
    return [line.strip() for line in lines]


def test_the_repository_has_three_stages_and_all_load():
    assert stages() == ["dev", "local", "prod"]
    assert [load(stage).stage for stage in stages()] == stages()


def test_production_keeps_its_data_and_the_others_do_not():
    assert {stage: load(stage).storage.retain for stage in stages()} == {"dev": False, "local": False, "prod": True}


def test_a_file_needs_to_say_only_what_has_no_safe_default(write):
    settings = write(MINIMAL)
    assert (settings.project, settings.stage) == ("kennel", "test")
    assert settings.stack_name("storage") == "kennel-test-storage"
    assert settings.function.url_auth == "AWS_IAM"


def test_an_empty_section_for_ec2_trainings_is_enough(write):
    ec2 = write(MINIMAL + "[training.ec2]\n").training.ec2
    assert (ec2.instance_type, ec2.spot) == ("t3.xlarge", False)
    assert ec2.shutdown_minutes == 90


@pytest.mark.parametrize(("seconds", "minutes"), [(60, 31), (61, 32), (3600, 90)])
def test_the_time_limit_of_an_instance_is_longer_than_the_trainings(write, seconds, minutes):
    text = f"{MINIMAL}[training.ec2]\nmax_runtime_seconds = {seconds}\n"
    assert write(text).training.ec2.shutdown_minutes == minutes


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ('[training.ec2]\ninstance_type = "t4g.xlarge"', "t4g.xlarge is an arm64 machine"),
        ('[training.ec2]\ninstance_type = "ml.m5.large"', "'ml.m5.large' is not known"),
        ('[training.ec2]\nimage_parameter = "ami-1"', "is not the public parameter of a Deep Learning AMI"),
        ("[training.ec2]\nvolume_gb = 20", "20 is outside 75 to 16384"),
        ('[notebook]\nsubnet_id = "subnet-0123456789abcdef0"', "belong together"),
        ('[notebook]\nsecurity_group_ids = ["sg-0123456789abcdef0"]', "belong together"),
        ('[notebook]\nsecurity_group_ids = ["all"]', "is not a security group id"),
        ("[notebook]\nidle_minutes = 5", "5 is outside 10 to 1440"),
    ],
)
def test_mistakes_about_ec2_and_the_notebook_are_reported(write, section, problem):
    with pytest.raises(SettingsError) as error:
        write(f"{MINIMAL}{section}\n")
    (line,) = problems(error)
    assert problem in line


def test_an_absent_section_switches_its_feature_off(write):
    settings = write(MINIMAL)
    assert settings.serving.scaling is None
    assert settings.training.ec2 is None
    assert settings.notebook is None
    assert settings.function.reserved_concurrency is None
    assert settings.storage.archive_training_outputs_after_days is None


def test_settings_cannot_be_changed_after_loading(write):
    with pytest.raises(FrozenInstanceError):
        write(MINIMAL).storage.retain = True


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
        ("af-south-1", "626614931356.dkr.ecr.af-south-1.amazonaws.com"),
        ("cn-north-1", "727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", "442386744353.dkr.ecr.us-gov-west-1.amazonaws.com"),
        ("us-isob-east-1", "094389454867.dkr.ecr.us-isob-east-1.sc2s.sgov.gov"),
    ],
)
def test_awss_images_are_in_the_account_and_partition_of_the_region(region, registry):
    assert load("dev").training.image.uri(region) == f"{registry}/pytorch:2.13-cpu-amzn2023-sagemaker"


def test_an_image_of_ones_own_is_in_the_account_that_the_settings_name(write):
    image = write(
        MINIMAL + "[training.image]\nrepository = 'mine'\ntag = '1'\naccount = '111122223333'\n"
    ).training.image
    assert image.uri("eu-nowhere-1") == "111122223333.dkr.ecr.eu-nowhere-1.amazonaws.com/mine:1"


def test_no_address_is_made_up_for_a_region_without_awss_images():
    with pytest.raises(SettingsError, match=r"AWS gives out no pytorch:\S+ in eu-nowhere-1; regions: af-south-1, "):
        load("dev").training.image.uri("eu-nowhere-1")


def test_a_stage_in_a_region_without_awss_images_is_refused(write):
    place = "account = '111122223333'\nregion = 'eu-nowhere-1'\n"
    with pytest.raises(SettingsError) as error:
        write(place + MINIMAL)
    (training,) = problems(error)
    assert training.startswith(
        "region: AWS gives out no pytorch:2.13-cpu-amzn2023-sagemaker in eu-nowhere-1; regions: "
    )
    assert training.endswith("; or set training.image.account to an account that has it")
    own = "[training.image]\nrepository = 'mine'\ntag = '1'\naccount = '111122223333'\n[serving]\nimage = 'own'\n"
    assert write(place + MINIMAL + own).region == "eu-nowhere-1"


@pytest.mark.parametrize("region", ["eu-west-1", "cn-north-1", "us-gov-east-1", "us-iso-east-1", "eusc-de-east-1"])
def test_stages_can_be_in_every_partition(write, region):
    assert write(f"account = '111122223333'\nregion = '{region}'\n{MINIMAL}").region == region


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov", "aws-iso-b", "aws-eusc"])
def test_invokers_can_be_in_every_partition(write, partition):
    arn = f"arn:{partition}:iam::111122223333:role/caller"
    assert write(f"{MINIMAL}[function]\ninvokers = ['{arn}']\n").function.invokers == (arn,)


def test_scaling_target_is_per_minute_and_keeps_the_margin(write):
    scaling = (
        "[serving.scaling]\nmin_instances = 1\nmax_instances = 2\nmax_rps_per_instance = 7.5\nsafety_factor = 0.8\n"
    )
    assert write(MINIMAL + scaling).serving.scaling.invocations_per_instance_and_minute == pytest.approx(360)


def test_unknown_stage_lists_the_known_ones():
    with pytest.raises(SettingsError, match=r"^There is no stage 'production'\. Stages: dev, local, prod\.$"):
        load("production")


@pytest.mark.parametrize("name", ["", "../dev", "/etc/passwd", "dev.toml", "DEV"])
def test_a_stage_is_a_name_not_a_path(name):
    with pytest.raises(SettingsError, match="There is no stage"):
        load(name)


def test_broken_toml_names_the_file_and_the_line(write):
    with pytest.raises(SettingsError, match=r"^test\.toml is not valid TOML: .*line 2"):
        write("[storage]\nretain = maybe\n")


def test_a_file_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "test.toml").write_bytes(b'project = "h\xfctte"\n')
    with pytest.raises(SettingsError, match="is not valid TOML"):
        load("test", directory=tmp_path)


def test_every_problem_is_reported_at_once(write):
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
instance_type = "ml.c7g.large"

[serving.scaling]
min_instances = 3
max_instances = 2
max_rps_per_instance = 0

[function]
memory_mb = 64
timeout_seconds = 20
log_retention_days = 8
invokers = ["somebody"]
url_auth = "none"
"""
    with pytest.raises(SettingsError) as error:
        write(text)
    assert sorted(problems(error)) == sorted(
        [
            "stage: is the name of the file, leave it out",
            "projekt: unknown setting; did you mean project?",
            "account: '123' is not an account id of twelve digits",
            "storage.retain: missing",
            "storage.noncurrent_version_days: 0 is outside 1 to 3650",
            "training.instance_type: 'ml.m5.hughe' is not known; did you mean ml.m5.large or ml.m5.xlarge or "
            "ml.m5.4xlarge?",
            "training.instance_count: must be a whole number, not a text ('two')",
            "training.image: must be a table, not a text ('pytorch')",
            "serving.variant_name: 'my variant' is not a variant name",
            "serving.scaling.max_rps_per_instance: 0.0 is outside 0.02 to 100000",
            "function.memory_mb: 64 is outside 128 to 10240",
            "function.log_retention_days: 8 is not known; allowed: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, "
            "400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653",
            "function.invokers[0]: 'somebody' is not the ARN of an IAM role or user",
            "function.url_auth: 'none' is not known; allowed: AWS_IAM, NONE",
        ]
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[serving]\nimage = 'onw'\n",
            "serving.image: 'onw' is not \"own\" or the URI of an image in ECR",
        ),
        (
            "[serving]\nimage = 'docker.io/library/python:3'\n",
            "serving.image: 'docker.io/library/python:3' is not \"own\" or the URI",
        ),
        ("[serving.image]\nrepository = 'runtime'\n", "serving.image: must be a text, not a table"),
        ("[storge]\nretain = true\n", "storge: unknown setting; did you mean storage?"),
        ("[storage.deep]\nx = 1\n", "storage.deep: unknown setting; allowed: access_log_days, archive_training_"),
        (
            "[function]\nprovisoned_concurency = 1\n",
            "function.provisoned_concurency: unknown setting; did you mean prov",
        ),
        ("[serving]\nscaling = true\n", "serving.scaling: must be a table, not true or false (True)"),
        ("serving = []\n", "serving: must be a table, not a list"),
        ("[function]\ninvokers = 'x'\n", "function.invokers: must be a list, not a text ('x')"),
        ("[function]\nmemory_mb = true\n", "function.memory_mb: must be a whole number, not true or false (True)"),
        ("[function]\nmemory_mb = 512.0\n", "function.memory_mb: must be a whole number, not a number (512.0)"),
        ("[function]\nmemory_mb = 2020-01-01\n", "function.memory_mb: must be a whole number, not date"),
        ("project = 'Kennel'\n", "project: 'Kennel' is not a project name (2 to 24 lower-case letters or digits)"),
        ("project = 'kennel\\n'\n", "project: "),
        ("[serving]\ninstance_type = 'm5.large'\n", "serving.instance_type: 'm5.large' is not known; did you mean ml."),
        ("[training.image]\ntag = 'x'\n", "training.image.repository: missing"),
        ("[training.tuning]\nstrategy = 'grid'\n", "training.tuning.strategy: 'grid' is not known; allowed: bayesian"),
        ("[training.tuning]\nbatch_sizes = [32, 1]\n", "training.tuning.batch_sizes[1]: 1 is outside 2 to 65536"),
        ("[[training.tuning.numbers]]\nname = 'x'\nmin = 1\n", "training.tuning.numbers[0].max: missing"),
        ("[[training.tuning.choices]]\nname = 'X'\nvalues = ['a']\n", "training.tuning.choices[0].name: 'X' is not a "),
        ("[training.hyperparameters]\nlr = [1]\n", "training.hyperparameters.lr: must be a text, a number, true or"),
        ("[training]\nhyperparameters = 3\n", "training.hyperparameters: must be a table, not a whole number (3)"),
        (
            "[serving.scaling]\nmin_instances = 1\nmax_instances = 2\nmax_rps_per_instance = nan\n",
            "serving.scaling.max_",
        ),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(write, text, problem):
    with pytest.raises(SettingsError) as error:
        write(text)
    assert any(line.startswith(problem) for line in problems(error)), problems(error)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[function]\nprovisioned_concurrency = 5\nreserved_concurrency = 4\n",
            "function.reserved_concurrency: 4 is less than the provisioned concurrency (5)",
        ),
        (
            "[function]\nprovisioned_concurrency = 2\nreserved_concurrency = 4\n"
            "[function.scaling]\nmin_provisioned = 1\nmax_provisioned = 9\n",
            "function.reserved_concurrency: 4 is less than the provisioned concurrency (9)",
        ),
        (
            "[function]\nprovisioned_concurrency = 0\n[function.scaling]\nmin_provisioned = 1\nmax_provisioned = 9\n",
            "function.scaling: needs provisioned_concurrency as its starting point",
        ),
        (
            "[function]\nprovisioned_concurrency = 10\n[function.scaling]\nmin_provisioned = 1\nmax_provisioned = 9\n",
            "function.provisioned_concurrency: 10 is outside scaling.min_provisioned to scaling.max_provisioned (1 to",
        ),
        (
            "[function.scaling]\nmin_provisioned = 3\nmax_provisioned = 2\n",
            "function.scaling.min_provisioned: 3 is more than max_provisioned (2)",
        ),
        (
            "[function]\ntimeout_seconds = 25\n",
            "function.timeout_seconds: 25 must be more than fetch_timeout_seconds + endpoint_timeout_seconds (25)",
        ),
        (
            "[serving]\ninitial_instances = 1\n"
            "[serving.scaling]\nmin_instances = 2\nmax_instances = 3\nmax_rps_per_instance = 1\n",
            "serving.initial_instances: 1 is outside scaling.min_instances to scaling.max_instances (2 to 3)",
        ),
        (
            "[serving.scaling]\nmin_instances = 3\nmax_instances = 2\nmax_rps_per_instance = 1\n",
            "serving.scaling.min_instances: 3 is more than max_instances (2)",
        ),
        (
            "[training.image]\nrepository = 'own'\ntag = '1'\narchitecture = 'arm64'\n",
            "training.instance_type: ml.m5.xlarge is an x86_64 machine, but image.architecture is arm64",
        ),
        ("[training]\nmax_wait_seconds = 7200\n", "training.max_wait_seconds: only goes with spot = true"),
        (
            "[training]\nspot = true\nmax_wait_seconds = 600\n",
            "training.max_wait_seconds: 600 is less than max_runtime_seconds (3600), which it includes",
        ),
        ("[training.tuning]\nmax_jobs = 1\n", "training.tuning.parallel_jobs: 2 is more than max_jobs (1)"),
        (
            "[training.tuning]\nlearning_rate_min = 0.1\n",
            "training.tuning.learning_rate_min: 0.1 must be less than learning_rate_max (0.1)",
        ),
        ("[training.tuning]\nbatch_sizes = []\n", "training.tuning.batch_sizes: 1 to 30 different sizes"),
        ("[training.tuning]\nbatch_sizes = [8, 8]\n", "training.tuning.batch_sizes: 1 to 30 different sizes"),
        (
            "[[training.tuning.choices]]\nname = 'batch_size'\nvalues = ['8']\n",
            "training.tuning.numbers, choices: more than one range for batch-size",
        ),
        (
            "[[training.tuning.choices]]\nname = 'mode'\nvalues = ['a', 'a']\n",
            "training.tuning.choices[0].values: 1 to 30 different texts",
        ),
        (
            "[[training.tuning.numbers]]\nname = 'x'\nmin = 0\nmax = 1\nscale = 'logarithmic'\n",
            "training.tuning.numbers[0].min: 0 must be more than 0 on a logarithmic scale",
        ),
        (
            "[[training.tuning.numbers]]\nname = 'x'\nmin = 0\nmax = inf\n",
            "training.tuning.numbers[0].min: 0 must be less than max (inf), and both finite",
        ),
        (
            "[[training.tuning.numbers]]\nname = 'x'\nmin = 0.5\nmax = 2\ninteger = true\n",
            "training.tuning.numbers[0].integer: 0.5 and 2 are not whole numbers",
        ),
        ("[function]\nurl_auth = 'NONE'\n", "function.public_reason: missing; an unsigned URL needs the reason"),
        (
            "[function]\npublic_reason = 'A reason that is long enough.'\n",
            'function.public_reason: only goes with url_auth = "NONE"',
        ),
    ],
)
def test_values_that_do_not_fit_together_are_refused(write, text, problem):
    with pytest.raises(SettingsError) as error:
        write(MINIMAL + text)
    (line,) = problems(error)
    assert line.startswith(problem)


ECR = "111122223333.dkr.ecr.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    "image",
    [
        "own",
        f"{ECR}/runtime:7",
        f"{ECR}/team/runtime@sha256:{'0' * 64}",
        "111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn/runtime:1",
        "111122223333.dkr.ecr.us-iso-east-1.c2s.ic.gov/runtime:1",
    ],
)
def test_serving_image_is_ours_or_an_address(write, image):
    assert write(f"{MINIMAL}[serving]\nimage = '{image}'\n").serving.image == image


@pytest.mark.parametrize("image", [f"{ECR}/runtime", f"{ECR}/Runtime:1", f"{ECR}/runtime:1 ", f"{ECR}/r@sha256:12", ""])
def test_incomplete_image_addresses_are_refused(write, image):
    with pytest.raises(SettingsError, match=r"serving\.image: .* is not"):
        write(f"{MINIMAL}[serving]\nimage = '{image}'\n")


def test_an_image_address_of_another_partition_is_refused(write):
    with pytest.raises(SettingsError) as error:
        write(f"{MINIMAL}[serving]\nimage = '{ECR}.cn/runtime:7'\n")
    assert problems(error) == ["serving.image: hosts in eu-west-1 end in amazonaws.com, not in amazonaws.com.cn"]


def test_our_image_and_an_address_go_with_any_instance_type(write):
    for image in ("own", f"{ECR}/runtime:7"):
        write(f"{MINIMAL}[serving]\nimage = '{image}'\ninstance_type = 'ml.c7g.large'\n")


def test_an_image_of_another_region_is_refused(write):
    place = "account = '111122223333'\nregion = 'us-east-1'\n"
    with pytest.raises(SettingsError) as error:
        write(f"{place}{MINIMAL}[serving]\nimage = '{ECR}/runtime:7'\n")
    assert problems(error) == [
        "serving.image: is in eu-west-1, but region is us-east-1; SageMaker pulls images of its own region only"
    ]


@pytest.mark.parametrize("text", ["account = '111122223333'\n", "region = 'eu-west-1'\n"])
def test_account_and_region_belong_together(write, text):
    with pytest.raises(SettingsError) as error:
        write(text + MINIMAL)
    assert problems(error) == ["account: account and region belong together, set both or neither"]


def test_conflicts_in_one_section_do_not_hide_mistakes_in_another(write):
    with pytest.raises(SettingsError) as error:
        write(MINIMAL + "[function]\ntimeout_seconds = 5\n[training]\nvolume_gb = 0\n")
    assert [line.partition(":")[0] for line in problems(error)] == ["training.volume_gb", "function.timeout_seconds"]


def test_hyperparameters_keep_their_types(write):
    settings = write(
        MINIMAL + "[training.hyperparameters]\nepochs = 3\nlr = 0.1\narchitecture = 'resnet18'\nflip = true\n"
    )
    assert settings.training.hyperparameters == {"epochs": 3, "lr": 0.1, "architecture": "resnet18", "flip": True}


def test_spot_training_waits_twice_as_long_as_it_runs_unless_told_otherwise(write):
    assert write(MINIMAL).training.stopping_condition == {"MaxRuntimeInSeconds": 3600}
    waiting = {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200}
    assert write(MINIMAL + "[training]\nspot = true\n").training.stopping_condition == waiting
    longer = write(MINIMAL + "[training]\nspot = true\nmax_wait_seconds = 9000\n")
    assert longer.training.stopping_condition["MaxWaitTimeInSeconds"] == 9000


toml_values = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)


@given(table=st.dictionaries(st.sampled_from([*Settings.__dataclass_fields__, "other"]), toml_values, max_size=5))
def test_no_table_makes_the_reader_stumble(table):
    with suppress(SettingsError):
        assert read_table(Settings, table).storage is not None
