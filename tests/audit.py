"""Looks up what the locks name among known vulnerabilities: `python -m tests.audit locks/dev.txt ...`, by pip-audit.

A vulnerability is a failure. A service that cannot be asked is none, so that the check can be run without a way out:
then a line on standard error says that nothing was audited. Whether the service can tell is asked first, by a release
whose vulnerability everybody knows: something that answers every question with nothing audits nothing either.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

import requests

SERVICE: Final = "https://api.osv.dev/v1/query"
KNOWN: Final = {"package": {"name": "jinja2", "ecosystem": "PyPI"}, "version": "2.4.1"}  # its sandbox is none
PROBE_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 15


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1 where something is vulnerable, or the audit fails half-way."""
    parser = argparse.ArgumentParser(prog="python -m tests.audit")
    parser.add_argument("locks", nargs="+", metavar="lock", type=Path)
    parser.add_argument("--service", default=SERVICE, help="where OSV's question is answered (default: %(default)s)")
    asked = parser.parse_args(arguments)
    why_not = why_it_cannot_tell(asked.service)
    if why_not is not None:
        print(f"NOT AUDITED: {asked.service} {why_not}; nothing is known of the dependencies", file=sys.stderr)
        return 0
    files = [argument for lock in asked.locks for argument in ("--requirement", str(lock))]
    # The locks are complete: nothing is resolved, and nothing is fetched but answers.
    command = [*(sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off")]
    command += ["--vulnerability-service", "osv", "--osv-url", asked.service, "--timeout", str(ANSWER_SECONDS), *files]
    return int(subprocess.run(command, check=False).returncode != 0)


def why_it_cannot_tell(service: str) -> str | None:
    """Why the service is of no use, or None where it knows what everybody knows."""
    try:
        answer = requests.post(service, json=KNOWN, timeout=PROBE_SECONDS)
        answer.raise_for_status()
        found = answer.json()
    except requests.RequestException as error:
        return f"cannot be asked ({type(error).__name__})"
    is_known = isinstance(found, dict) and bool(found.get("vulns"))
    return None if is_known else f"does not know that {KNOWN['package']} {KNOWN['version']} is vulnerable"


if __name__ == "__main__":
    sys.exit(main())
