#!/bin/sh
# Make .venv with the locked packages and the library. Every missing thing gets one line that names the fix.
set -u
cd "$(dirname "$0")/.." || exit 1

stop() {
    echo "setup: $1" >&2
    exit 1
}

# the first of these that runs and is new enough; a shim that only complains does not count
fits='import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 12)))'
found=""
for candidate in ${PYTHON:-python3 python3.12 python3.11}; do
    if "$candidate" -c "$fits" 2>/dev/null; then
        found=$candidate
        break
    fi
done
if [ -z "$found" ]; then
    have=$(python3 --version 2>/dev/null || echo "no python3")
    stop "Python 3.11 or 3.12 is needed, found: ${PYTHON:-$have}. Install one (Debian 12, Ubuntu 24.04: apt-get install python3 python3-venv; elsewhere pyenv, uv or conda) or name it: make setup PYTHON=/path/to/python3.12"
fi
"$found" -c 'import venv, ensurepip' 2>/dev/null || stop "$found has no venv module. Install it (Debian: apt-get install python3-venv)"
command -v make >/dev/null 2>&1 || echo "setup: make is not installed (Debian: apt-get install make); without it use .venv/bin/python -m mgrpo_lib reproduce" >&2

free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1024 / 1024) }')
[ -x .venv/bin/python ] || [ "$free" -ge "${MGRPO_SETUP_GB:-6}" ] || stop "only $free GB of disk are free here and about ${MGRPO_SETUP_GB:-6} are needed. Free some, or clone to a larger disk"

if [ -x .venv/bin/python ] && ! .venv/bin/python -c "$fits" 2>/dev/null; then
    rm -rf .venv
fi
[ -x .venv/bin/python ] || "$found" -m venv .venv || stop "could not make .venv with $found; remove .venv and try again"
echo "setup: installing the locked packages into .venv (once; 2 to 6 GB, minutes)"
(while sleep 30 >/dev/null 2>&1; do echo "setup: $(du -sh .venv 2>/dev/null | cut -f1) so far"; done) &
telling=$!
trap 'kill $telling 2>/dev/null' EXIT
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock || stop "pip could not install requirements.lock; its message is above (network? proxy? disk?). The same command goes on"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . || stop "pip could not install the library itself; its message is above"
echo "setup: done"
