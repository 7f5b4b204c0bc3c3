"""Known vulnerabilities in the locked dependencies, those of Rust and those of Python: `make audit`.

Ends with 1 if an advisory affects a dependency and is not excepted in deny.toml, with its reason. The databases of
advisories are on the network. What they cannot be asked about is reported as NOT AUDITED and is no failure: CI must not
depend on their hosts. Arguments choose some of the files: Cargo.lock, requirements.txt.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
FILES: Final = ("requirements.txt", "requirements-dev.txt", "requirements-audit.txt")
LIMIT_S: Final = 300
NO_ADVISORIES: Final = "failed to fetch advisory database"
"""What cargo-deny says if it cannot clone its database."""
NO_DATABASE: Final = re.compile(
    r"Could not connect|not redirecting|^requests\.exceptions\.|^pip_audit\.\S*ServiceError", re.MULTILINE
)
"""What pip-audit says if its database does not answer, as a message or as the last line of a traceback."""


def report(name: str, text: str) -> None:
    """Print what is known of a file."""
    print(f"audit: {name}: {text}", flush=True)  # noqa: T201 - a script for people


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command; one that takes too long has failed."""
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"{NO_ADVISORIES}: Could not connect within {LIMIT_S} s")


def is_rust_sound() -> bool:
    """Report the advisories on what Cargo.lock holds, and return whether there are none."""
    deny = (shutil.which("cargo") or "cargo", "deny")
    config = ("--config", os.environ.get("AUDIT_DENY_CONFIG", "deny.toml"))
    fetched = run(*deny, *config, "fetch", "db")
    if fetched.returncode != 0 and NO_ADVISORIES in fetched.stderr:
        report("Cargo.lock", f"NOT AUDITED, because the advisories cannot be fetched: {last_line(fetched.stderr)}")
        return True
    if fetched.returncode != 0:
        report("Cargo.lock", f"cargo-deny failed\n{fetched.stdout}{fetched.stderr}")
        return False
    checked = run(*deny, "--offline", *config, "check", "advisories")
    if checked.returncode != 0:
        report("Cargo.lock", f"advisories that deny.toml does not except\n{checked.stdout}{checked.stderr}")
        return False
    report("Cargo.lock", "no known vulnerabilities but the exceptions in deny.toml")
    return True


def is_python_sound(name: str) -> bool:
    """Report the advisories on what a file of requirements holds, and return whether there are none."""
    service = os.environ.get("AUDIT_SERVICE", "").split()
    asked = run(
        str(Path(sys.executable).with_name("pip-audit")), *service, "--require-hashes", "--disable-pip",
        "--progress-spinner", "off", "--format", "json", "--requirement", name,
    )  # fmt: skip
    if asked.stdout.strip():
        return is_sound(name, asked.stdout)
    if NO_DATABASE.search(asked.stderr):
        report(name, f"NOT AUDITED, because the database does not answer: {last_line(asked.stderr)}")
        return True
    report(name, f"pip-audit failed\n{asked.stderr}")
    return False


def is_sound(name: str, found: str) -> bool:
    """Report what pip-audit found, and return whether no package has an advisory.

    pip-audit passes over packages that its database does not know. A mirror without a database knows none of them.
    """
    packages = json.loads(found)["dependencies"]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    bad = [(package, advisory) for package in packages for advisory in package.get("vulns", ())]
    for package, advisory in bad:
        fixed = ", ".join(advisory["fix_versions"]) or "no version"
        report(name, f"{package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}")
    if unknown:
        some = ", ".join(unknown[:3])
        report(
            name, f"NOT AUDITED: the database does not know {len(unknown)} of {len(packages)} packages, such as {some}"
        )
    elif not bad:
        report(name, f"no known vulnerabilities in {len(packages)} packages")
    return not bad


def last_line(text: str) -> str:
    """Return the last line of an error message, cut to a sentence or two."""
    return (text.strip().splitlines() or ["no message"])[-1][:300]


if __name__ == "__main__":
    names = sys.argv[1:] or ["Cargo.lock", *FILES]
    # A list, because `all` alone would stop at the first finding.
    verdicts = [is_rust_sound() if name == "Cargo.lock" else is_python_sound(name) for name in names]
    sys.exit(0 if all(verdicts) else 1)
