from __future__ import annotations

import itertools

import pytest

from model.training.distributed.group import ALONE, DistributedError, Workers, joined


@pytest.mark.parametrize(("size", "multiple"), [*itertools.product((1, 2, 3, 7), (1, 2))])
def test_the_shares_cover_everything_once_and_are_alike(size, multiple):
    for count in range(30):
        shares = [range(count)[Workers(rank, size).share(count, multiple=multiple)] for rank in range(size)]
        assert list(itertools.chain(*shares)) == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= multiple
        assert all(share.start % multiple == 0 for share in shares if share)


def test_a_worker_alone_needs_no_group():
    with joined(1, {}) as workers:
        assert workers == ALONE
        workers.barrier()
        assert workers.is_main
        assert workers.all_gather({"a": 1}) == [{"a": 1}]
        assert workers.broadcast("b") == "b"
        assert workers.sum([0.1, 2.0]) == [0.1, 2.0]
        assert workers.any(True, False) == [True, False]
        assert range(7)[workers.share(7)] == range(7)


@pytest.mark.parametrize(("environment", "expected"), [({}, 4), ({"WORLD_SIZE": "2"}, 4), ({"WORLD_SIZE": "2"}, 1)])
def test_a_group_of_another_size_than_asked_for_is_refused(environment, expected):
    with (
        pytest.raises(DistributedError, match=rf"WORLD_SIZE is .*ask for {expected} workers"),
        joined(expected, environment),
    ):
        pass
