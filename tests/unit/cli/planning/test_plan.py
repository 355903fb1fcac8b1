"""`kennel plan`: its formulas beside a simulation by events, scaling in time, and settings that a stage takes."""

from __future__ import annotations

import heapq
import random
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_stage import FakeStage
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.aws import ROOT
from cli.errors import UsageError
from cli.planning.offers import Question
from cli.planning.simulator import Course, Fleet, late_share, simulate, tracking, waiting
from cli.planning.traffic import make_traffic
from infra.tables.serving import ServingSettings
from infra.validation import read_table

POLICY = tracking("InvocationsPerInstance", 300, 120, 60)
FLEET = Fleet(rate=10, workers=2, queue=50, minimum=1, maximum=4, policy=POLICY, start_seconds=120, metric_delay=60)


@pytest.mark.parametrize("workers", [1, 2, 4, 16])
@pytest.mark.parametrize("used", [0.3, 0.6, 0.8, 0.95])
def test_waits_are_those_of_a_simulation_by_events(workers: int, used: float) -> None:
    service, chance = 0.1, random.Random(1)
    rate, now, free, waits = used * workers / service, 0.0, [0.0] * workers, []
    for _ in range(40_000):
        now += chance.expovariate(rate)
        begin = max(now, heapq.heappop(free))
        waits.append(begin - now)
        heapq.heappush(free, begin + service)
    for slack in (0.05, 0.2, 0.5):
        (found,) = late_share(*waiting(np.array([rate]), workers, service), np.array([slack]))
        assert found == pytest.approx(np.mean(np.array(waits) > slack), abs=0.07)


def course(*minutes: float, **changes: object) -> Course:
    return simulate(np.repeat(minutes, 60), replace(FLEET, **changes), 0.5)  # type: ignore[arg-type]


def test_an_instance_comes_after_three_periods_the_delay_of_the_metric_and_its_start() -> None:
    found = course(*[1] * 5, *[9] * 15)
    assert np.flatnonzero(found.serving > 1)[0] == (5 + 3 + 1 + 2) * 60
    assert np.flatnonzero(found.billed > 1)[0] == (5 + 3 + 1) * 60  # billed from its start on
    assert found.serving.max() == 2  # 9 a second for a target of 5


def test_instances_go_after_fifteen_quiet_minutes() -> None:
    found = course(*[9] * 10, *[1] * 30)
    assert np.flatnonzero(found.serving > 1)[-1] + 1 == (10 + 15 + 1) * 60


def test_a_queue_that_is_full_refuses_and_one_that_fills_is_late() -> None:
    found = course(*[20] * 5, maximum=1)
    assert (found.refused[-60:] == 10).all()  # 20 come, 10 are answered
    assert found.late[-60:] == pytest.approx(10)


def test_no_instance_is_added_without_load_and_no_request_late() -> None:
    found = course(*[0] * 30)
    assert found.serving.max() == 1
    assert found.late.sum() == found.refused.sum() == 0


@settings(max_examples=10, deadline=None)
@given(st.floats(0.1, 100_000), st.sampled_from(["steady", "daily", "spiky"]), st.sampled_from(["dev", "prod"]))
def test_settings_of_every_offer_are_valid(rate: float, pattern: str, stage: str) -> None:
    known = FakeStage(stage).settings
    assert known.serving.scaling
    question = Question(known, known.serving.scaling, make_traffic(pattern, rate, 0.25), 0.3, 100_000, 300)
    before = tomllib.loads((ROOT / FakeStage(stage).settings_file).read_text())["serving"]
    for offer in question.offers():
        assert 0 <= offer.late + offer.refused <= offer.traffic.sum() * 1.001
        if offer.settings:
            kept = {} if offer.instances is None else before  # as the command says
            read_table(ServingSettings, kept | tomllib.loads(offer.settings)["serving"])


def test_a_serverless_endpoint_refuses_what_exceeds_its_concurrency() -> None:
    known = FakeStage("dev").settings
    assert known.serving.scaling
    question = Question(known, known.serving.scaling, make_traffic("steady", 5000, 0.25), 0.3, 100_000, 300)
    (offer,) = (offer for offer in question.offers() if offer.name == "serverless 2 GB")
    assert not offer.holds
    assert offer.traffic.sum() - offer.refused == pytest.approx(200 / 0.1 * 900, rel=0.02)  # 200 at a time, 0.1 s each


def test_traffic_of_a_file_is_repeated_and_scaled_to_the_peak(tmp_path: Path) -> None:
    file = tmp_path / "traffic.csv"
    file.write_text("seconds,rate\n0,1\n1799,3\n")
    traffic = make_traffic(str(file), 30, 1)
    assert (traffic[0], traffic[1799], traffic[1800]) == (10, 30, 10)
    for wrong in ("0,1\n0,many\n", "", "names,only\n", "0,1\n1,inf\n", "1,1\n0,2\n", "0,0\n1,0\n"):
        file.write_text(wrong)
        with pytest.raises(UsageError, match="neither steady"):
            make_traffic(str(file), 30, 1)
