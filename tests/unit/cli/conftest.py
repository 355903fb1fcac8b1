"""The command line, in this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import main


@pytest.fixture
def kennel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs `kennel …`; gives the exit code, and standard output before the errors."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["kennel", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main.main()
        output = "".join(capsys.readouterr())
        assert "Traceback" not in output
        return int(stopped.value.code or 0), output

    return run


@pytest.fixture
def no_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment says nothing of AWS; its configuration file would be `tmp_path / "config"`."""
    for name in [*os.environ]:
        if name.startswith(("AWS_", "KENNEL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
