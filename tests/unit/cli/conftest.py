"""The command line, in this process."""

from __future__ import annotations

from collections.abc import Callable

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
