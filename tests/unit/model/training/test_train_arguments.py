from __future__ import annotations

import pytest

from model.training.arguments import ArgumentsError, parse_arguments

PLACES = {"SM_CHANNEL_TRAINING": "/opt/ml/input/data/training", "SM_MODEL_DIR": "/opt/ml/model"}


def test_places_and_machine_come_from_sagemakers_variables():
    environment = PLACES | {
        "SM_OUTPUT_DATA_DIR": "/opt/ml/output/data",
        "SM_NUM_CPUS": "3",
        "SM_NUM_GPUS": "0",
        "SM_HOSTS": '["algo-1"]',
        "TRAINING_JOB_NAME": "job-7",
    }
    arguments = parse_arguments([], environment)
    assert str(arguments.data_dir) == "/opt/ml/input/data/training"
    assert str(arguments.model_dir) == "/opt/ml/model"
    assert str(arguments.output_data_dir) == "/opt/ml/output/data"
    assert (arguments.num_cpus, arguments.num_gpus, arguments.job_name) == (3, 0, "job-7")


def test_the_command_line_wins_over_the_environment():
    arguments = parse_arguments(
        ["--data-dir", "here", "--num-cpus=1", "--job-name", "mine"], PLACES | {"SM_NUM_CPUS": "8"}
    )
    assert (str(arguments.data_dir), arguments.num_cpus, arguments.job_name) == ("here", 1, "mine")


def test_hyperparameters_may_have_underscores_but_values_keep_theirs():
    arguments = parse_arguments(["--batch_size", "16", "--model_name=my_dogs", "--architecture", "resnet18"], PLACES)
    assert (arguments.recipe.batch_size, arguments.model_name) == (16, "my_dogs")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "0"], "--epochs: '0' is not a whole number from 1 to"),
        (["--epochs", "2.5"], "--epochs: '2.5' is not a whole number"),
        (["--batch-size", "1"], "--batch-size: '1' is not a whole number from 2 to"),
        (["--lr", "nan"], "--lr: 'nan' is not a number from"),
        (["--lr", "fast"], "--lr: 'fast' is not a number from"),
        (["--weight-decay", "-1"], "--weight-decay: '-1' is not a number from 0 to"),
        (["--label-smoothing", "1"], "--label-smoothing: '1' is not a number from 0 to 0.9"),
        (["--learning-rate", "0.1"], "unrecognized arguments: --learning-rate"),
        (["--epoch", "3"], "unrecognized arguments: --epoch"),
        (["--hosts", "algo-1"], "is not a JSON list of names"),
        (["--checkpoint-minutes", "1"], "--checkpoint-minutes means nothing without --checkpoint-dir; leave it out"),
        (["--checkpoint-keep", "1"], "--checkpoint-keep means nothing without --checkpoint-dir"),
    ],
)
def test_values_that_are_not_allowed_are_named(argv, message):
    with pytest.raises(ArgumentsError) as error:
        parse_arguments(argv, PLACES)
    assert message in str(error.value)


def test_values_from_the_environment_are_checked_too():
    with pytest.raises(ArgumentsError, match="--num-cpus"):
        parse_arguments([], PLACES | {"SM_NUM_CPUS": "all"})


def test_somewhere_the_data_must_be():
    with pytest.raises(ArgumentsError, match="--data-dir is needed where SM_CHANNEL_TRAINING is not set"):
        parse_arguments([], {})


def test_hosts_and_meeting_place_come_from_sagemaker():
    environment = PLACES | {"SM_HOSTS": '["algo-1", "algo-2"]', "SM_CURRENT_HOST": "algo-2"}
    arguments = parse_arguments([], environment)
    assert (arguments.hosts, arguments.current_host) == (("algo-1", "algo-2"), "algo-2")
    assert (arguments.master_addr, arguments.master_port) == ("algo-1", 7777)
    given = parse_arguments([], environment | {"SM_MASTER_ADDR": "10.0.0.7", "SM_MASTER_PORT": "29500"})
    assert (given.master_addr, given.master_port) == ("10.0.0.7", 29500)


@pytest.mark.parametrize(("hosts", "current"), [('["algo-1", "algo-2"]', "algo-3"), ('["algo-1", "algo-1"]', "algo-1")])
def test_a_host_that_is_not_among_the_hosts_is_refused(hosts, current):
    with pytest.raises(ArgumentsError, match="must be one of --hosts"):
        parse_arguments(["--hosts", hosts, "--current-host", current], PLACES)
