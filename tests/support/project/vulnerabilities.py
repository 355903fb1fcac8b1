"""Compare all pinned packages with the vulnerabilities that OSV and npm know: `make vulnerabilities`.

The exit status is 0 when there is none but exceptions, 1 when there is one, or an exception that has expired or covers
nothing, and 3 when a service did not answer for a package.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
#: Files of pins, for people, each with a lock beside it, which is what is installed.
PINNED = sorted([*ROOT.glob("requirements-*.txt"), *ROOT.glob("benchmarks/requirements-*.txt")])
#: Files that others install by this name, so they hold the hashes themselves.
HASHED = [
    ROOT / "model" / "training" / "job" / "requirements.txt",
    ROOT / "model" / "serving" / "image" / "requirements.txt",
]
#: Where all these versions stand: pip-audit does not follow what a file includes.
AUDITED = [ROOT / "requirements.txt", *PINNED]
EXCEPTIONS = ROOT / "tests" / "security" / "origin" / "vulnerability_exceptions.toml"
_PIP_AUDIT = "-m pip_audit --disable-pip --no-deps --format json --progress-spinner off --vulnerability-service osv"


def main(exceptions: str, osv: str) -> int:
    """Print what is known of the packages, and the exceptions with their reasons."""
    packages: list[Any] = []
    for path in AUDITED:  # one by one, because they pin different versions
        python, reason = _report(sys.executable, *_PIP_AUDIT.split(), f"--osv-url={osv}", f"--requirement={path}")
        packages += python.get("dependencies") or [{"name": path.name, "skip_reason": reason}]
    unchecked = [f"{it['name']}: {it['skip_reason']}" for it in packages if "skip_reason" in it]
    print(f"{len(packages) - len(unchecked)} pinned packages of Python were looked up.")
    every = {(it["name"], known["id"], *known["aliases"]) for it in packages for known in it.get("vulns", [])}
    found = [(name, {*ids}) for name, *ids in sorted(every)]
    node, reason = _report("npm", "audit", "--package-lock-only", "--json")
    if "vulnerabilities" not in node:
        unchecked.append(f"Node's: {node.get('message', reason)}")
    for name, package in node.get("vulnerabilities", {}).items():
        found += [(name, {cause["url"].rpartition("/")[2]}) for cause in package["via"] if isinstance(cause, dict)]

    problems = []
    for rule in tomllib.loads(exceptions).get("exception", []):
        covered = [it for it in found if rule["id"] in it[1]]
        found = [it for it in found if it not in covered]
        print(f"exception until {rule['expires']}: {rule['id']}: {rule['reason']}")
        if rule["expires"] < datetime.datetime.now(datetime.UTC).date():
            problems.append(f"{rule['id']}: this exception has expired. Update the package, or look at it again.")
        elif not covered and not unchecked:
            problems.append(f"{rule['id']}: this exception covers nothing. Take it out.")
    problems += [f"{name} is vulnerable: {', '.join(sorted(ids))}" for name, ids in found]
    print("\n".join([*problems, *(f"NOT CHECKED: {it}" for it in unchecked)]) or "No other vulnerability is known.")
    return 1 if problems else 3 if unchecked else 0


def _report(*command: str) -> tuple[dict[str, Any], str]:
    """What a program reports, and the end of its complaints."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout), done.stderr
    except ValueError:
        return {}, done.stderr.strip().rpartition("\n")[2]


if __name__ == "__main__":
    sys.exit(main(EXCEPTIONS.read_text(encoding="utf-8"), "https://api.osv.dev/v1/query"))
