"""What the attacks proved, as a table at the end: tests tell it by pytest's `record_property`."""

from typing import Any

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what passed tests recorded; whole numbers of one name, such as a parametrised test's, are added."""
    proven: dict[str, Any] = {}
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            proven[name] = proven.get(name, 0) + value if type(value) is int else value
    if proven:
        terminalreporter.section("what was proven")
    for name, value in sorted(proven.items()):
        shown = f"{value:,}" if type(value) is int else value
        terminalreporter.line(f"{shown:>12}  {name}")
