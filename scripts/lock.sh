#!/usr/bin/env bash
# Writes requirements.lock anew: the newest versions that pyproject.toml allows on Python 3.11, each pinned.
# Installs them into a fresh environment, so it takes a few minutes. Usage: scripts/lock.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."

python=${1:-python3.11}
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
    echo "The lock is made with Python 3.11, the oldest that mxnb supports; '$python' is not. Usage: scripts/lock.sh python3.11" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What `make run` and `make test` need: mxnb's own dependencies and these extras (cuda12 and tpu are for other machines).
"$python" - > "$work/wanted.txt" <<'PY'
import tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
wanted = project["dependencies"] + [line for name in ("wandb", "widgets", "slurm", "dev") for line in extras[name]]
print("\n".join(wanted + ["setuptools>=77"]))
PY

"$python" -m venv "$work/venv"
echo "Resolving $(wc -l < "$work/wanted.txt") requirements ..."
"$work/venv/bin/pip" install -qq --upgrade --requirement "$work/wanted.txt"
"$work/venv/bin/pip" check
{
    echo "# Written by scripts/lock.sh for Python 3.11; change pyproject.toml and run it again rather than edit here."
    "$work/venv/bin/pip" list --format=freeze --exclude pip 2> "$work/log.txt" | LC_ALL=C sort -f
} > "$work/requirements.lock"
if grep -vE '^(#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+)$' "$work/requirements.lock"; then
    echo "The lines above are not NAME==VERSION; requirements.lock was left as it was." >&2
    exit 1
fi
cp "$work/requirements.lock" requirements.lock
echo "requirements.lock: $(grep -c == requirements.lock) packages"
