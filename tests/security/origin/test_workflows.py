"""Workflows trust commits and no tags, have no permission that they do not need, and run all tests; releases."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")}
JOBS = [(name, job) for workflow in WORKFLOWS.values() for name, job in workflow["jobs"].items()]


@pytest.mark.parametrize(("name", "job"), JOBS, ids=[name for name, _ in JOBS])
def test_a_job_trusts_commits_and_has_no_more_than_it_says(name: str, job: dict[str, Any]) -> None:
    assert all(workflow["permissions"] == {} for workflow in WORKFLOWS.values())
    assert job["permissions"] == {"contents": "read"} | ({"id-token": "write"} if name == "deploy" else {})
    assert job["timeout-minutes"] <= 90
    actions = [step["uses"] for step in job["steps"] if "uses" in step]
    assert [action for action in actions if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action)] == []
    assert "${{" not in "".join(step.get("run", "") for step in job["steps"]), "texts of others come by env"


def test_the_ci_runs_all_kinds_of_tests() -> None:
    (prerequisites,) = re.findall(r"^test: (.*?) ##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = " ".join(WORKFLOWS["ci"]["jobs"]["test"]["strategy"]["matrix"]["targets"]).split()
    assert sorted(["setup", *targets]) == sorted([*prerequisites.split(), "test-slow"])


def test_a_release_has_its_version_date_and_tag(tmp_path: Path) -> None:
    (tmp_path / "emulator").mkdir()
    for name in ("Makefile", "pyproject.toml", "CHANGELOG.md", "emulator/pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)

    def run(command: str, status: int = 0) -> str:
        who = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b"
        script = ["sh", "-c", f"{who}; {command}"]
        done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        return done.stdout

    release = f"PATH={ROOT}/.venv/bin:$PATH make --assume-old=setup release"
    run("git init --quiet && git add . && git commit --quiet --message first")
    assert "Which version?" in run(release, 2)
    run(f"{release} VERSION=0.9.1")
    for folder in ("", "emulator/"):
        assert 'version = "0.9.1"' in run(f"git show v0.9.1:{folder}pyproject.toml")
    assert re.search(r"## \[Unreleased\]\n\n## \[0\.9\.1\] - \d{4}-\d\d-\d\d\n\n### Added", run("cat CHANGELOG.md"))
    run("echo >>CHANGELOG.md")
    assert "Commit or stash first" in run(f"{release} VERSION=0.9.2", 2)
