"""What holds for all tests."""

import os
import signal
import webbrowser
from collections.abc import Generator

import pytest
from hypothesis import settings

# A busy machine is no failure: speed is for the benchmarks.
settings.register_profile("kennel", deadline=None)
settings.load_profile("kennel")

# OpenMP's threads spin while they wait; on a busy machine they take the cores from those that have work. Set before
# torch is imported, and inherited by every program that a test starts.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A shell starts background jobs with Ctrl-C ignored, and every program that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let what a test logs be any text: pytest-xdist sends it as UTF-8, which file names need not be."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a browser was asked for; there is a desktop."""
    addresses: list[str] = []
    monkeypatch.setattr(webbrowser, "open", addresses.append)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("KENNEL_STAGE", raising=False)
    return addresses
