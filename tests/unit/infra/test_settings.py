"""Settings: what is in the repository loads, and every mistake in a file is reported at once."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.settings import ROOT, Settings, load, stages
from infra.validation import SettingsError, read_table

MINIMAL = "[storage]\nretain = false\n"
PLACE = "account = '111122223333'\nregion = '{}'\n"
ECR = "111122223333.dkr.ecr.eu-west-1.amazonaws.com"
CALLER = "function.invokers = ['arn:aws:iam::111122223333:role/web']"
PUBLIC = "function.url_auth = 'NONE'\nfunction.public_reason = 'A reason that is long enough.'"
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


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[serving]\nimage = 'onw'\n", "serving.image: 'onw' is not \"own\" or the URI of an image in ECR"),
        *((f"[serving]\nimage = '{image}'\n", f"serving.image: '{image}' is not")
          for image in ("docker.io/python:3", f"{ECR}/r", f"{ECR}/R:1", f"{ECR}/r:1 ", f"{ECR}/r@sha256:1", "")),
        ("[storage.deep]\nx = 1\n", "storage.deep: unknown setting; allowed: retain, noncurrent_version_days, "),
        ("[serving]\nscaling = true\n", "serving.scaling: should be a table, not True"),
        ("serving = []\n", "serving: should be a table, not []"),
        ("[function]\nmemory_mb = true\n", "function.memory_mb: should be a whole number, not True"),
        ("[function]\nlog_retention_days = 8\n", "function.log_retention_days: should be 1, 3, 5, 7, 14, 30, 60, "),
        ("[training]\nspot = 1\n", "training.spot: should be true or false, not 1"),
        ("project = \"kennel\\n\"\n", "project: 'kennel\\n' is not a project name"),
        ("[serving]\ninstance_type = 'qqq'\n", "serving.instance_type: 'qqq' is not known; allowed are names suc"),
        ("[training.image]\ntag = 'x'\n", "training.image.repository: missing"),
        ("[training.tuning]\nbatch_sizes = [32, 1]\n", "training.tuning.batch_sizes[1]: should be greater than or eq"),
        ("[[training.tuning.numbers]]\nnmae = 'x'\n", "training.tuning.numbers[0].nmae: unknown setting; did you mea"),
        ("[training.hyperparameters]\nlr = [1]\n", "training.hyperparameters.lr: must be a text, a number, true or"),
        ("[serving.scaling]\nmin_instances = 1\nmax_instances = 2\nmax_rps_per_instance = nan\n", "serving.scaling.m"),
        ('[training.ec2]\nimage_parameter = "ami-1"', "training.ec2.image_parameter: 'ami-1' is not the public param"),
        ('[notebook]\nsecurity_group_ids = ["all"]', "notebook.security_group_ids[0]: 'all' is not a security group "),
    ],
)  # fmt: skip
def test_a_bad_value_is_named_with_what_is_allowed(problems, text, problem):
    assert any(line.startswith(problem) for line in problems(text)), problems(text)


SCALED = "scaling = {min_provisioned = 1, max_provisioned = 9}"
GUARD = "alarms = {}\ncost_guard = {monthly_usd = 1"
RANGE = "training.tuning.numbers = [{name = 'x', min = 0, max = 1, %s}]"
SIZED = "min_instances = 2, max_instances = 3, max_rps_per_instance = 1"
MORNING = (
    "{name = 'morning', cron = '0 7 ? * MON-FRI *', timezone = 'Europe/Berlin', min_instances = 2, max_instances = 9}"
)


def scaled(more: str) -> str:
    return f"serving = {{initial_instances = 2, scaling = {{{SIZED}, {more}}}}}"


NIGHT = scaled(f"schedules = [{MORNING.replace('= 2', '= 1')}]").removeprefix("serving = {").removesuffix("}")


def rolled(instances: str, strategy: str, percent: int) -> str:
    share = f"percent = {percent}, " if percent else ""
    rollout = f"{{strategy = '{strategy}', {share}wait_seconds = 3600}}"
    return f"alarms = {{}}\nserving = {{{instances}, rollout = {rollout}}}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("account = '111122223333'", "account: account and region belong together, set both or neither"),
        ("region = 'eu-west-1'", "account: account and region belong together, set both or neither"),
        (f"{PLACE.format('us-east-1')}serving.image = '{ECR}/runtime:7'", "serving.image: is in eu-west-1, but region"),
        (f"serving.image = '{ECR}.cn/runtime:7'", "serving.image: hosts in eu-west-1 end in amazonaws.com, not in "),
        ("training.ec2.instance_type = 't4g.xlarge'", "training.ec2.instance_type: t4g.xlarge is an arm64 machine, "),
        ("notebook.subnet_id = 'subnet-0123456789abcdef0'", "notebook.subnet_id: subnet_id and security_group_ids bel"),
        ("function = {provisioned_concurrency = 5, reserved_concurrency = 4}", "function.reserved_concurrency: 4 is"),
        (f"function = {{reserved_concurrency = 4, {SCALED}}}", "function.reserved_concurrency: 4 is less than the pr"),
        (f"function = {{provisioned_concurrency = 0, {SCALED}}}", "function.scaling: needs provisioned_concurrency a"),
        ("cost_guard.monthly_usd = 1", "cost_guard.email: nobody would hear of the costs; set it, or add the table"),
        (f"{GUARD}, idle_endpoint = 'minimum'}}", "cost_guard.idle_endpoint: "),
        (f"{GUARD}, notebook_hours = 9}}", "cost_guard.notebook_hours: there is no"),
        (f"{GUARD}, training_hours = 1}}\ntraining.ec2 = {{}}", "cost_guard.training_hours: 1 is less than the 1.5"),
        (f"function = {{provisioned_concurrency = 10, {SCALED}}}", "function.provisioned_concurrency: 10 is outside s"),
        ("function.timeout_seconds = 25", "function.timeout_seconds: 25 must be more than fetch_timeout_seconds + end"),
        ("function.contact = 'a@b.org) evil'", "function.contact: "),
        ("function.url_auth = 'NONE'", "function.public_reason: missing; an unsigned URL needs the reason"),
        (
            "function = {url_auth = 'NONE', public_reason = 'A demonstration of it.', caller_requests_per_minute = 9}",
            "function.caller_requests_per_minute: needs url_auth",
        ),
        ("function.public_reason = 'A reason that is long enough.'", "function.public_reason: only goes with url_auth"),
        ("function.organization = 'o-abcdefghij'", "function.organization: says of which organisation the accounts"),
        (f"function.source_ips = ['1.2.3.4']\n{CALLER}", "function.source_ips: AWS takes no addresses in a function's"),
        (f"function.source_ips = ['1.2.3.4']\n{PUBLIC}", 'function.url_auth: "NONE" lets everybody call, whatever'),
        (f"serving.scaling = {{{SIZED}}}", "serving.initial_instances: 1 is outside scaling.min_instances to scaling."),
        (f"serving.scaling = {{{SIZED.replace('3', '1')}}}", "serving.scaling.min_instances: 2 is more than max_inst"),
        ("serving = {kind = 'serverless', capture = {}}", "serving.capture: not with a serverless endpoint: SageMaker"),
        (f"serving = {{kind = 'serverless', scaling = {{{SIZED}}}}}", "serving.scaling: not with a serverless endpoin"),
        ("serving = {kind = 'serverless', instance_type = 'ml.g5.xlarge'}", "serving.instance_type: not with a serve"),
        ("serving = {kind = 'serverless', serverless = {provisioned_concurrency = 6}}", "serving.serverless.provisi"),
        ("serving.serverless.memory_mb = 4096", 'serving.serverless: only goes with kind = "serverless"'),
        (scaled("metric = 'concurrency'"), "serving.scaling.concurrent_requests_per_instance: goes with metric = "),
        (scaled(f"schedules = [{MORNING}, {MORNING}]"), "serving.scaling.schedules: more than one is named morning"),
        (scaled(f"schedules = [{MORNING.replace('9', '1')}]"), "serving.scaling.schedules[0].min_instances: 2 is more"),
        ("alarms = {}\ndrift = {}", "drift: looks at captured requests, and pages; add the tables"),
        ("serving.rollout = {}", "serving.rollout: goes back by alarms; add the table [alarms]"),
        ("alarms = {}\nserving.rollout = {percent = 20}", "serving.rollout.percent: goes with strategy = "),
        (rolled("initial_instances = 1", "canary", 50), 'serving.rollout.strategy: "canary" moves at most half'),
        (rolled(NIGHT, "canary", 50), "serving.rollout.strat"),
        (rolled("initial_instances = 4", "linear", 10), "serving.rollout: its waits and two starts may take 38100 sec"),
        (rolled("instance_type = 'ml.inf1.xlarge'", "all_at_once", 0), "serving.rollout: SageMaker cannot on ml.inf1"),
        ("training.image = {repository = 'own', tag = '1', architecture = 'arm64'}", "training.instance_type: ml.m5."),
        ("training.max_wait_seconds = 7200", "training.max_wait_seconds: only goes with spot = true"),
        ("training = {spot = true, max_wait_seconds = 600}", "training.max_wait_seconds: 600 is less than max_runtime"),
        ("training.tuning.learning_rate_min = 0.1", "training.tuning.learning_rate_min, learning_rate_max: give both "),
        ("training.tuning = {learning_rate_min = 0.1, learning_rate_max = 0.1}", "training.tuning.learning_rate_min: "),
        ("training.tuning.batch_sizes = [8, 8]", "training.tuning.batch_sizes: 1 to 30 different sizes"),
        ("training.tuning.choices = [{name = 'batch_size', values = ['8']}]", "training.tuning.numbers, choices: mor"),
        ("training.tuning.choices = [{name = 'x', values = ['a', 'a']}]", "training.tuning.choices[0].values: 1 to 30"),
        (RANGE % "scale = 'logarithmic'", "training.tuning.numbers[0].min: 0 must be more than 0 on a logarithmic sca"),
        (RANGE.replace("1", "inf") % "integer = false", "training.tuning.numbers[0].min: 0 must be less than max (inf"),
        (RANGE.replace("1", "1.5") % "integer = true", "training.tuning.numbers[0].integer: 0 and 1.5 are not whole "),
    ],
)
def test_values_that_do_not_fit_together_are_refused(problems, text, problem):
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


@pytest.mark.parametrize(
    ("cron", "problem"),
    [
        ("0 7 * * MON-FRI *", "exactly one of day of month and day of week must be ?"),
        ("0 24 ? * MON *", "'24' is not a value of hours"),
        ("0 7 ? * MON", "is not six fields: minutes, hours, day of month, month, day of week, year, such as"),
        ("0 7 ? JANUARY MON *", "'JANUARY' is not a value of month"),
        *((cron, "") for cron in ("0/15 7,8 ? * MON-FRI *", "0 9 L * ? *", "30 18 ? JAN-MAR FRI#1 2026-2030")),
    ],
)
def test_a_schedule_takes_the_cron_of_aws(write, problems, cron, problem):
    text = scaled(f"schedules = [{MORNING.replace('0 7 ? * MON-FRI *', cron)}]") + f"\n{MINIMAL}"
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
