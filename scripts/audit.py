"""`make audit`: bandit over the code, pip-audit over the packages that users of dagfs run.

It fails on what is found. Where the vulnerability service cannot be reached, or does not know a package, it says so and
does not fail: builders without a network exist, and a green line that checked nothing would be a lie.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SERVICES = ("pypi", "osv")
"""Asked in turn for what the one before did not know."""

SECONDS = 300


def main() -> int:
    code = subprocess.run([sys.executable, "-m", "bandit", "-q", "-r", "dagfs", "training"], check=False).returncode
    print("audit: bandit has nothing to say" if code == 0 else "audit: bandit has findings, see above")
    packages = sorted(set(installed("dagfs", frozenset({"train"}))))
    return max(code, judge(packages, ask_all(packages)))


def installed(name: str, extras: frozenset[str], seen: set[str] | None = None) -> Iterator[str]:
    """Give NAME==VERSION of all that a package needs here, down to the last."""
    seen = set() if seen is None else seen
    for text in metadata.requires(name) or ():
        wanted = Requirement(text)
        applies = wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in (*extras, ""))
        name = canonicalize_name(wanted.name)
        if not applies or name in seen:
            continue
        seen.add(name)
        try:
            yield f"{name}=={metadata.version(wanted.name)}"
        except metadata.PackageNotFoundError:  # an extra's, for another platform
            continue
        yield from installed(wanted.name, frozenset(wanted.extras), seen)


def ask_all(packages: list[str]) -> dict[str, list[str] | None]:
    """Give the known vulnerabilities of each package; None where no service knew the package or answered."""
    found: dict[str, list[str] | None] = dict.fromkeys(packages)
    for service in SERVICES:
        unknown = [package for package, known in found.items() if known is None]
        if unknown:
            found.update(ask(service, unknown))
    return found


def ask(service: str, packages: list[str]) -> dict[str, list[str]]:
    """Run pip-audit; what it gives no answer for is left out."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(packages))
        file.flush()
        options = [
            "--no-deps",
            "--disable-pip",
            "--progress-spinner",
            "off",
            "-f",
            "json",
            "-s",
            service,
            "-r",
            file.name,
        ]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pip_audit", *options],
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            print(f"audit: {service} did not answer within {SECONDS} s")
            return {}
    try:
        told = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        print(f"audit: {service} gave no answer: {(done.stderr.strip().splitlines() or ['nothing was said'])[-1]:.200}")
        return {}
    return {
        f"{canonicalize_name(one['name'])}=={one['version']}": [vulnerability["id"] for vulnerability in one["vulns"]]
        for one in told
        if "vulns" in one
    }


def judge(packages: list[str], found: dict[str, list[str] | None]) -> int:
    """Print what was found; 1 when something was."""
    vulnerable = {package: known for package, known in found.items() if known}
    unknown = [package for package in packages if found.get(package) is None]
    for package, ids in vulnerable.items():
        print(f"audit: {package} has {', '.join(ids)}")
    if unknown:
        print(
            "audit: NOT AUDITED, no vulnerability service answered for them:"
            f" {len(unknown)} of {len(packages)} packages"
        )
    else:
        print(f"audit: {len(packages)} packages asked for, {len(vulnerable)} with known vulnerabilities")
    return int(bool(vulnerable))


if __name__ == "__main__":
    sys.exit(main())
