"""cfn-lint and checkov on the templates of every stage: no finding but the accepted, each with its reason."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from templates import PROJECT, SynthesisedStage

from infra.settings import NotebookSettings

CHECKOV = Path(os.environ.get("CHECKOV", PROJECT / "build" / "checkov" / "bin" / "checkov"))
ACCEPTED = Path(__file__).with_name("accepted_findings.toml")
#: A finding: tool and rule, and the logical id of the resource.
Finding = tuple[str, str]


def accepted(tool: str) -> set[Finding]:
    """What is accepted of a tool."""
    entries = tomllib.loads(ACCEPTED.read_text(encoding="utf-8"))["accepted"]
    assert all(len(entry["reason"]) > 30 for entry in entries)
    found = [(e["finding"], resource) for e in entries if e["finding"].startswith(tool) for resource in e["resources"]]
    assert len(found) == len(set(found))
    return set(found)


@pytest.fixture(scope="module")
def templates(
    stages: dict[str, SynthesisedStage], synthesise: Callable[..., SynthesisedStage], tmp_path_factory
) -> Path:
    """A folder with the templates of all stages, and of one that has all that a stage can have."""
    folder, dev = tmp_path_factory.mktemp("templates"), stages["dev"].settings
    everything = replace(dev, stage="everything", notebook=NotebookSettings())
    for stage in (*stages.values(), synthesise(everything)):
        for template in stage.assembly.glob("*.template.json"):
            shutil.copy(template, folder)
    assert len(list(folder.iterdir())) == 12
    return folder


def test_cfn_lint_finds_nothing_else(templates: Path):
    command = [Path(sys.executable).with_name("cfn-lint"), "--format", "json", *sorted(templates.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout, done.stderr
    found = {
        (f"cfn-lint {match['Rule']['Id']}", str((match["Location"]["Path"] or [None, match["Message"]])[1]))
        for match in json.loads(done.stdout)
    }
    assert found == accepted("cfn-lint")


@pytest.mark.skipif(not CHECKOV.exists(), reason="checkov is not installed: make infra")
def test_checkov_finds_nothing_else(templates: Path):
    assert {(finding, name) for finding, name in failed_checks(templates)} == accepted("checkov")


def failed_checks(templates: Path) -> Iterator[Finding]:
    """What checkov finds, without asking anybody outside for its opinion."""
    options = ["--skip-download", "--framework", "cloudformation", "--output", "json"]
    command = [CHECKOV, *options, "--directory", templates]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert (report["summary"]["passed"] > 100, report["summary"]["parsing_errors"]) == (True, 0)
    for check in report["results"]["failed_checks"]:
        yield f"checkov {check['check_id']}", check["resource"].rpartition(".")[2]
