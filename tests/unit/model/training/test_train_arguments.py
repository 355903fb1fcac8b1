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
TWO = '["algo-1","algo-2"]'


def parse(*argv: str, **environment: str) -> TrainingConfig:
    return parse_arguments(argv, PLACES | environment)


def test_sagemakers_variables_count_unless_the_command_line_says_otherwise():
    config = parse("--num-cpus=1", SM_NUM_CPUS="3", TRAINING_JOB_NAME="job-7", SM_HOSTS=TWO, SM_CURRENT_HOST="algo-2")
    assert (config.data_dir, config.model_dir) == (Path("/opt/ml/input/data/training"), Path("/opt/ml/model"))
    assert (config.num_cpus, config.job_name) == (1, "job-7")
    assert (config.hosts, config.current_host) == (("algo-1", "algo-2"), "algo-2")
    assert (config.master_addr, config.master_port) == ("algo-1", 7777)
    given = parse(SM_HOSTS=TWO, SM_MASTER_ADDR="10.0.0.7", SM_MASTER_PORT="29500")
    assert (given.master_addr, given.master_port) == ("10.0.0.7", 29500)


def test_hyperparameters_may_have_underscores_but_values_keep_theirs():
    config = parse("--batch_size", "16", "--model_name=my_dogs", "--mode=head", "--search=3", "--search_lr=1e-4,0.5")
    assert (config.recipe.batch_size, config.model_name, config.search_lr) == (16, "my_dogs", (1e-4, 0.5))


@pytest.mark.parametrize(
    ("argv", "environment", "checkpoints", "features"),
    [
        ("", {}, None, "build/features"),
        ("", {"SM_CHECKPOINT_DIR": "here"}, "here", "here/features"),
        ("--mode=head --feature-cache=y", {"SM_CHECKPOINT_DIR": "here"}, "here", "y"),
        # The training jobs of a tuning job share the place.
        ("", {"SM_CHECKPOINT_DIR": "here", "TRAINING_JOB_NAME": "job-1"}, "here/job-1", "here/features"),
        ("--checkpoint-dir x", {"TRAINING_JOB_NAME": "job-1"}, "x", "x/features"),
    ],
)
def test_each_job_has_checkpoints_of_its_own_and_all_share_their_features(argv, environment, checkpoints, features):
    config = parse(*argv.split(), **environment)
    assert config.checkpoint_dir == (checkpoints and Path(checkpoints))
    assert config.feature_cache == Path(features)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--epochs 0", "--epochs: '0' is not a whole number from 1 to"),
        ("--lr nan", "--lr: 'nan' is not a number from"),
        ("--hosts algo-1", "is not a JSON list of names"),
        (f"--hosts {TWO} --current-host algo-3", "must be one of --hosts"),
        ('--hosts ["algo-1","algo-1"] --current-host algo-1', "must be one of --hosts"),
        ("--mode head --search 3 --search-lr 0.1,0.001", "'0.1,0.001' is not a lower and a higher number"),
        ("--mode head --search 3 --search-batch-sizes 32,many", "'many' is not a whole number from 2"),
        ("--mode head --compile on", "--compile means nothing to --mode head; leave it out"),
        ("--mode head --accumulate 2", "--accumulate means nothing to --mode head; leave it out"),
        ("--mode head --sync-batch-norm on", "--sync-batch-norm means nothing to --mode head; leave it out"),
        ("--mode head --search-lr 0.01,0.1", "--search-lr means nothing without --search"),
        ("--epocs=3", "unrecognized arguments: --epocs=3; did you mean --epochs?; "),
        ("--batch_sizes 3", "did you mean --batch-size?"),
        ("--augment none --crop-scale 0.8", "--crop-scale means nothing with --augment none; leave it out"),
        ("--augment none --mode head --views 3", "--views means nothing with --augment none; leave it out"),
        ("--augment trivial --rotation 10", "--rotation means nothing with --augment trivial; leave it out"),
        ("--mode head --mirror off", "--mirror means nothing without --views; leave it out"),
        ("--mirror no", "invalid choice: 'no' (choose from"),
        ("--crop-scale 0", "--crop-scale: '0' is not a number from 0.01 to 1"),
        ("--checkpoint-minutes 1", "--checkpoint-minutes means nothing without --checkpoint-dir; leave it out"),
    ],
)
def test_what_is_not_allowed_or_has_no_effect_is_named(argv, message):
    with pytest.raises(ArgumentsError) as error:
        parse(*argv.split())
    assert message in str(error.value)


def test_values_from_the_environment_are_checked_too():
    with pytest.raises(ArgumentsError, match="--num-cpus"):
        parse(SM_NUM_CPUS="all")
    with pytest.raises(ArgumentsError, match="--data-dir is needed where SM_CHANNEL_TRAINING is not set"):
        parse_arguments([], {})


def test_without_optuna_a_search_is_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ArgumentsError, match="--search needs optuna"):
        parse("--mode", "head", "--search", "1")


def test_the_command_line_can_read_it_without_numpy_and_torch():
    # -S leaves site-packages out, so that importing anything else than the standard library fails.
    modules = "model.training.arguments, model.training.loop.metrics, model.training.data.image_folder"
    subprocess.run([sys.executable, "-S", "-c", f"import {modules}"], check=True, cwd=Path(__file__).parents[4])
