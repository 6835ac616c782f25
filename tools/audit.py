"""Looks up every locked package in PyPI's database of known vulnerabilities, by pip-audit in an environment that is thrown
away afterwards. Installs none of the locked packages. Needs the network.

Exit status: 0 if all were looked up and none is known to be vulnerable, 1 with findings, 2 if not all could be looked up.
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
UNREACHABLE = "the database cannot be reached from here (network? proxy? a mirror without it?)"


def verdict(report: dict[str, Any]) -> tuple[str, int]:
    """What pip-audit's report says, and the exit status. pip-audit itself takes packages that it could not look up for
    harmless.
    """
    packages = report["dependencies"]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    found = [(package, flaw) for package in packages for flaw in package.get("vulns", [])]
    lines = [
        f"{package['name']} {package['version']}: {' '.join([flaw['id'], *flaw.get('aliases', [])])}, mended in "
        f"{', '.join(flaw['fix_versions']) or 'no version yet'}"
        for package, flaw in found
    ]
    if len(skipped) == len(packages):
        return f"audit: nothing was looked up: {UNREACHABLE}", 2
    lines.append(
        f"audit: {len(packages) - len(skipped)} of {len(packages)} packages looked up, {len(found)} known vulnerabilities"
    )
    if skipped:
        lines.append(f"not in the database, so nothing is known of them: {', '.join(skipped)}")
    return "\n".join(lines), 1 if found else 2 if skipped else 0


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pip-audit>=2.9"]
        if subprocess.run(install).returncode:
            print("audit: pip-audit cannot be installed; its message is above (network? proxy?)", file=sys.stderr)
            return 2
        call = [
            python,
            "-m",
            "pip_audit",
            "--requirement",
            str(ROOT / "requirements.lock"),
            "--no-deps",
            "--disable-pip",
        ]
        done = subprocess.run([*call, "--format", "json", "--progress-spinner", "off"], capture_output=True, text=True)
    try:
        text, code = verdict(json.loads(done.stdout))
    except json.JSONDecodeError:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        text, code = f"audit: {UNREACHABLE}, or pip-audit failed: {last[0][:300]}", 2
    print(text, file=sys.stderr if code == 2 else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main())
