"""The function's benchmark: both handlers really run in a process of their own, and a broken one is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import lambda_start


@pytest.fixture
def asset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lambda_start, "SIZES", (1_000, 200_000))
    return lambda_start.lay_out_asset(tmp_path)


@pytest.mark.parametrize("module", [lambda_start.OURS, lambda_start.BOTO3])
def test_a_handler_is_called_with_each_size(asset: Path, module: str) -> None:
    with lambda_start.endpoint() as address:
        start = lambda_start.call_handler(asset, module, calls=2, address=address)
    assert start.init_ms > 1
    assert start.own_ms.keys() == {1_000, 200_000}
    assert all(-50 < milliseconds < 5_000 for milliseconds in start.own_ms.values())
    assert not list(asset.rglob("__pycache__"))  # the next process finds it as deployed, too


def test_a_handler_that_fails_has_no_figures(asset: Path) -> None:
    (asset / "broken.py").write_text("def handler(event, context):\n    return {'statusCode': 500, 'body': '{}'}\n")
    with lambda_start.endpoint() as address, pytest.raises(lambda_start.CallError, match="broken answered"):
        lambda_start.call_handler(asset, "broken", calls=1, address=address)
    with pytest.raises(lambda_start.CallError, match="No module named 'absent'"):
        lambda_start.call_handler(asset, "absent")


def test_loading_takes_what_the_module_does_then(asset: Path) -> None:
    (asset / "slow.py").write_text("import time\ntime.sleep(0.2)\nhandler = print\n")
    assert 200 <= lambda_start.call_handler(asset, "slow").init_ms < 2_000
