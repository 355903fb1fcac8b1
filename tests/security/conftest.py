"""What the attacks proved, as a table at the end: tests tell it by pytest's `record_property`."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what passed tests recorded; whole numbers of one name, such as a parametrised test's, are added."""
    numbers: dict[str, int] = {}
    texts: dict[str, str] = {}
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if type(value) is int:
                numbers[name] = numbers.get(name, 0) + value
            else:
                texts[name] = str(value)
    if numbers or texts:
        terminalreporter.section("what was proven")
    shown = {name: f"{number:,}" for name, number in numbers.items()} | texts
    for name in sorted(shown):
        terminalreporter.line(f"{shown[name]:>12}  {name}")
