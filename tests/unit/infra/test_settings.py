"""Settings: what is in the repository loads, and every mistake in a file is reported at once."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from infra.settings import ROOT, Settings, load, stages
from infra.validation import SettingsError, read_table

MINIMAL = "[storage]\nretain = false\n"
PLACE = "account = '111122223333'\nregion = '{}'\n"
OWN_TRAINING_IMAGE = "[training.image]\nrepository = 'mine'\ntag = '1'\naccount = '111122223333'\n"


@pytest.fixture
def write(tmp_path: Path):
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


def test_the_repository_has_five_stages_and_all_load():
    assert {name: load(name).storage.retain for name in stages()} == {
        **dict.fromkeys(("demo", "dev", "local", "serverless"), False),
        "prod": True,
    }
    assert [load(name).stage for name in stages()] == stages()


def test_a_file_needs_to_say_only_what_has_no_safe_default(write):
    settings = write(MINIMAL)
    assert (settings.project, settings.stage) == ("kennel", "test")
    assert settings.stack_name("storage") == "kennel-test-storage"
    assert settings.artifact == "build/test/model.tar.gz"
    assert settings.function.url_auth == "AWS_IAM"
    absent = (settings.serving.scaling, settings.training.ec2, settings.notebook, settings.function.scaling)
    assert absent == (None, None, None, None)


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


@pytest.mark.parametrize("name", ["production", "", "../dev", "/etc/passwd", "DEV"])
def test_a_stage_is_one_of_those_that_have_a_file_and_no_path(name):
    with pytest.raises(
        SettingsError, match=rf"^There is no stage '{name}'\. Stages: demo, dev, local, prod, serverless\.$"
    ):
        load(name)


def test_broken_toml_names_the_file_and_the_line(write):
    with pytest.raises(SettingsError, match=r"^test\.toml is not valid TOML: .*line 2"):
        write("[storage]\nretain = maybe\n")


def test_every_problem_is_reported_at_once(problems):
    text = """
stage = "other"
projekt = "dogs"
[storage]
noncurrent_version_days = 0
[training]
instance_type = "ml.m5.hughe"
image = "pytorch"
[function]
invokers = ["somebody"]
[training.tuning]
max_jobs = 1
"""
    assert sorted(problems(text)) == [
        "function.invokers[0]: 'somebody' is not the ARN of an IAM role or user",
        "projekt: unknown setting; did you mean project?",
        "stage: is the name of the file, leave it out",
        "storage.noncurrent_version_days: should be greater than or equal to 1, not 0",
        "storage.retain: missing",
        "training.image: should be a table, not 'pytorch'",
        "training.instance_type: 'ml.m5.hughe' is not known; did you mean ml.m5.large or ml.m5.xlarge or "
        "ml.m5.4xlarge?",
        "training.tuning.parallel_jobs: 2 is more than max_jobs (1)",  # two fields that contradict each other
    ]


@pytest.mark.parametrize(("text", "problem"), examples(__file__, "refused"))
def test_what_cannot_be_is_named_with_what_is_allowed(problems, text, problem):
    found = problems(f"{text}\n{MINIMAL}")
    assert [line[: len(problem)] for line in found] == [problem]


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


@pytest.mark.parametrize(("cron", "problem"), examples(__file__, "schedules"))
def test_a_schedule_takes_the_cron_of_aws(write, problems, cron, problem):
    morning = f"{{name = 'morning', cron = '{cron}', timezone = 'UTC', min_instances = 1, max_instances = 2}}"
    scaling = f"min_instances = 1, max_instances = 2, max_rps_per_instance = 1, schedules = [{morning}]"
    text = f"serving.scaling = {{{scaling}}}\n{MINIMAL}"
    assert problem in problems(text)[0] if problem else write(text).serving.scaling.schedules[0].cron == cron


toml_values = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)


@given(table=st.dictionaries(st.sampled_from([*Settings.__dataclass_fields__, "other"]), toml_values, max_size=5))
def test_no_table_makes_the_reader_stumble(table):
    with suppress(SettingsError):
        assert read_table(Settings, table).storage is not None
