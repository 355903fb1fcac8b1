"""The training's command line and its twins in the environment become one configuration, or one message."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from model.training.arguments import ArgumentsError, parse_arguments
from model.training.config import Recipe, TrainingConfig

PLACES = {"SM_CHANNEL_TRAINING": "/opt/ml/input/data/training", "SM_MODEL_DIR": "/opt/ml/model"}
TWO = '["algo-1", "algo-2"]'


def parse(*argv: str, **environment: str) -> TrainingConfig:
    return parse_arguments(argv, PLACES | environment)


def test_places_and_machine_come_from_sagemakers_variables():
    config = parse(
        SM_OUTPUT_DATA_DIR="/opt/ml/output/data", SM_NUM_CPUS="3", SM_NUM_GPUS="0", TRAINING_JOB_NAME="job-7"
    )
    assert config.data_dir == Path("/opt/ml/input/data/training")
    assert (config.model_dir, config.output_data_dir) == (Path("/opt/ml/model"), Path("/opt/ml/output/data"))
    assert (config.num_cpus, config.num_gpus, config.job_name) == (3, 0, "job-7")


def test_the_command_line_wins_over_the_environment():
    config = parse("--data-dir", "here", "--num-cpus=1", "--job-name", "mine", SM_NUM_CPUS="8")
    assert (config.data_dir, config.num_cpus, config.job_name) == (Path("here"), 1, "mine")


def test_hyperparameters_may_have_underscores_but_values_keep_theirs():
    config = parse("--batch_size", "16", "--model_name=my_dogs", "--mode=head", "--search=3", "--search_lr=1e-4,0.5")
    assert (config.recipe.batch_size, config.model_name, config.search_lr) == (16, "my_dogs", (1e-4, 0.5))


def test_the_defaults_of_a_recipe_are_those_of_the_command_line():
    assert parse().recipe == Recipe()


def test_a_configuration_cannot_be_changed_and_is_recorded_under_the_names_of_the_arguments():
    config = parse("--mixup", "0.2")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.input_size = 32  # type: ignore[misc]
    recorded = config.recorded()
    assert (recorded["mixup"], recorded["lr"], recorded["model_dir"]) == (0.2, 0.01, "/opt/ml/model")
    assert "recipe" not in recorded


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
    assert parse("--checkpoint-dir", "x").feature_cache == Path("x/features")
    given = parse("--mode", "head", "--feature-cache", "y", SM_CHECKPOINT_DIR=str(tmp_path))
    assert given.feature_cache == Path("y")


def test_jobs_that_share_a_place_have_checkpoints_of_their_own_and_share_their_features(tmp_path):
    job = parse(SM_CHECKPOINT_DIR=str(tmp_path), TRAINING_JOB_NAME="search-001")
    assert (job.checkpoint_dir, job.feature_cache) == (tmp_path / "search-001", tmp_path / "features")
    assert parse(SM_CHECKPOINT_DIR=str(tmp_path)).checkpoint_dir == tmp_path
    assert parse("--checkpoint-dir", "x", TRAINING_JOB_NAME="search-001").checkpoint_dir == Path("x")


@pytest.mark.parametrize("mode", ["finetune", "head"])
def test_what_every_job_is_given_is_taken_in_both_modes(mode, tmp_path):
    job = ("--model-name=sample", "--code-revision=abc", "--job-name=job-1", "--lr=0.02", "--batch-size=32")
    assert parse(f"--mode={mode}", *job, SM_CHECKPOINT_DIR=str(tmp_path)).mode == mode


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--epochs 0", "--epochs: '0' is not a whole number from 1 to"),
        ("--epochs 2.5", "--epochs: '2.5' is not a whole number"),
        ("--batch-size 1", "--batch-size: '1' is not a whole number from 2 to"),
        ("--lr nan", "--lr: 'nan' is not a number from"),
        ("--lr fast", "--lr: 'fast' is not a number from"),
        ("--label-smoothing 1", "--label-smoothing: '1' is not a number from 0 to 0.9"),
        ("--learning-rate 0.1", "unrecognized arguments: --learning-rate"),
        ("--epoch 3", "unrecognized arguments: --epoch"),
        ("--mode heads", "invalid choice: 'heads'"),
        ("--hosts algo-1", "is not a JSON list of names"),
        (f"--hosts {TWO.replace(' ', '')} --current-host algo-3", "must be one of --hosts"),
        ('--hosts ["algo-1","algo-1"] --current-host algo-1', "must be one of --hosts"),
        ("--checkpoint-minutes 1", "--checkpoint-minutes means nothing without --checkpoint-dir; leave it out"),
        ("--checkpoint-keep 1", "--checkpoint-keep means nothing without --checkpoint-dir"),
        ("--mode head --search 3 --search-lr 0.1", "'' is not a number"),
        ("--mode head --search 3 --search-lr 0.1,0.001", "'0.1,0.001' is not a lower and a higher number"),
        ("--mode head --search 3 --search-batch-sizes 32,many", "'many' is not a whole number from 2"),
        *[
            (f"{argument} {value}", f"{argument} means nothing to --mode finetune")
            for argument, value in (
                ("--search", 3), ("--views", 2), ("--search-lr", "0.01,0.1"), ("--search-batch-sizes", "8,64"),
                ("--feature-cache", "x"),
            )
        ],
        *[
            (f"--mode head {argument} {value}", f"{argument} means nothing to --mode head; leave it out")
            for argument, value in (
                ("--train-stages", 1), ("--lr-decay", 0.8), ("--mixup", 0.2), ("--cutmix", 1), ("--compile", "on"),
                ("--sync-batch-norm", "on"), ("--scale-with-workers", "on"), ("--checkpoint-minutes", 1),
                ("--checkpoint-keep", 1),
            )
        ],
        ("--mode head --search-lr 0.01,0.1", "--search-lr means nothing without --search"),
        ("--mode head --search-batch-sizes 8", "--search-batch-sizes means nothing without --search"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_or_has_no_effect_is_named(argv, message):
    with pytest.raises(ArgumentsError) as error:
        parse(*argv.split())
    assert message in str(error.value)


def test_values_from_the_environment_are_checked_too():
    with pytest.raises(ArgumentsError, match="--num-cpus"):
        parse(SM_NUM_CPUS="all")


def test_somewhere_the_data_must_be():
    with pytest.raises(ArgumentsError, match="--data-dir is needed where SM_CHANNEL_TRAINING is not set"):
        parse_arguments([], {})


def test_without_optuna_a_search_is_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert parse("--mode", "head").mode == "head"
    with pytest.raises(ArgumentsError, match="--search needs optuna"):
        parse("--mode", "head", "--search", "1")


def test_the_command_line_can_read_it_without_numpy_and_torch():
    # -S leaves site-packages out, so that importing anything else than the standard library fails.
    root = Path(__file__).parents[4]
    subprocess.run(
        [sys.executable, "-S", "-c", "import model.training.arguments, model.training.loop.metrics"],
        check=True,
        cwd=root,
    )
