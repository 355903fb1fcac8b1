"""The training's command line and its twins in the environment become one configuration, or one message."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from model.training.arguments import ArgumentsError, parse_arguments
from model.training.config import TrainingConfig

PLACES = {"SM_CHANNEL_TRAINING": "/opt/ml/input/data/training", "SM_MODEL_DIR": "/opt/ml/model"}
TWO = '["algo-1", "algo-2"]'


def parse(*argv: str, **environment: str) -> TrainingConfig:
    return parse_arguments(argv, PLACES | environment)


def test_places_and_machine_come_from_sagemakers_variables_unless_the_command_line_says_otherwise():
    environment = {"SM_OUTPUT_DATA_DIR": "/opt/ml/output/data", "SM_NUM_CPUS": "3", "TRAINING_JOB_NAME": "job-7"}
    config = parse(**environment)
    assert config.data_dir == Path("/opt/ml/input/data/training")
    assert (config.model_dir, config.output_data_dir) == (Path("/opt/ml/model"), Path("/opt/ml/output/data"))
    assert (config.num_cpus, config.job_name) == (3, "job-7")
    given = parse("--data-dir", "here", "--num-cpus=1", "--job-name", "mine", **environment)
    assert (given.data_dir, given.num_cpus, given.job_name) == (Path("here"), 1, "mine")


def test_hyperparameters_may_have_underscores_but_values_keep_theirs():
    config = parse("--batch_size", "16", "--model_name=my_dogs", "--mode=head", "--search=3", "--search_lr=1e-4,0.5")
    assert (config.recipe.batch_size, config.model_name, config.search_lr) == (16, "my_dogs", (1e-4, 0.5))


def test_hosts_and_meeting_place_come_from_sagemaker():
    environment = {"SM_HOSTS": TWO, "SM_CURRENT_HOST": "algo-2"}
    config = parse(**environment)
    assert (config.hosts, config.current_host) == (("algo-1", "algo-2"), "algo-2")
    assert (config.master_addr, config.master_port) == ("algo-1", 7777)
    given = parse(**environment, SM_MASTER_ADDR="10.0.0.7", SM_MASTER_PORT="29500")
    assert (given.master_addr, given.master_port) == ("10.0.0.7", 29500)


def test_features_are_kept_with_the_checkpoints_where_there_are_any(tmp_path):
    assert parse(SM_CHECKPOINT_DIR=str(tmp_path)).feature_cache == tmp_path / "features"
    assert parse().feature_cache == Path("build/features")
    assert parse("--mode=head", "--feature-cache=y", SM_CHECKPOINT_DIR=str(tmp_path)).feature_cache == Path("y")


def test_jobs_that_share_a_place_have_checkpoints_of_their_own_and_share_their_features(tmp_path):
    job = parse(SM_CHECKPOINT_DIR=str(tmp_path), TRAINING_JOB_NAME="search-001")
    assert (job.checkpoint_dir, job.feature_cache) == (tmp_path / "search-001", tmp_path / "features")
    assert parse(SM_CHECKPOINT_DIR=str(tmp_path)).checkpoint_dir == tmp_path
    assert parse("--checkpoint-dir", "x", TRAINING_JOB_NAME="search-001").checkpoint_dir == Path("x")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--epochs 0", "--epochs: '0' is not a whole number from 1 to"),
        ("--epochs 2.5", "--epochs: '2.5' is not a whole number"),
        ("--lr nan", "--lr: 'nan' is not a number from"),
        ("--epoch 3", "unrecognized arguments: --epoch"),
        ("--mode heads", "invalid choice: 'heads'"),
        ("--hosts algo-1", "is not a JSON list of names"),
        (f"--hosts {TWO.replace(' ', '')} --current-host algo-3", "must be one of --hosts"),
        ('--hosts ["algo-1","algo-1"] --current-host algo-1', "must be one of --hosts"),
        ("--mode head --search 3 --search-lr 0.1,0.001", "'0.1,0.001' is not a lower and a higher number"),
        ("--mode head --search 3 --search-batch-sizes 32,many", "'many' is not a whole number from 2"),
        ("--views 2", "--views means nothing to --mode finetune"),
        ("--mode head --compile on", "--compile means nothing to --mode head; leave it out"),
        ("--mode head --search-lr 0.01,0.1", "--search-lr means nothing without --search"),
        ("--checkpoint-minutes 1", "--checkpoint-minutes means nothing without --checkpoint-dir; leave it out"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_or_has_no_effect_is_named(argv, message):
    with pytest.raises(ArgumentsError) as error:
        parse(*argv.split())
    assert message in str(error.value)


def test_somewhere_the_data_must_be_and_values_from_the_environment_are_checked_too():
    with pytest.raises(ArgumentsError, match="--num-cpus"):
        parse(SM_NUM_CPUS="all")
    with pytest.raises(ArgumentsError, match="--data-dir is needed where SM_CHANNEL_TRAINING is not set"):
        parse_arguments([], {})


def test_without_optuna_a_search_is_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert parse("--mode", "head").mode == "head"
    with pytest.raises(ArgumentsError, match="--search needs optuna"):
        parse("--mode", "head", "--search", "1")


def test_the_command_line_can_read_it_without_numpy_and_torch():
    # -S leaves site-packages out, so that importing anything else than the standard library fails.
    modules = "model.training.arguments, model.training.loop.metrics, model.training.data.image_folder"
    subprocess.run([sys.executable, "-S", "-c", f"import {modules}"], check=True, cwd=Path(__file__).parents[4])
