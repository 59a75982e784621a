#!/usr/bin/env bash
# Makes .venv/colab: the versions that Colab has (colab/pins-gpu.txt), and mxnb put beside them by the notebooks' own setup
# cell, as there. Nothing to do where that was done with the same pins, setup cell and requirements. Exit 3: no packages.
set -euo pipefail
cd "$(dirname "$0")/.."
env=.venv/colab
made=$(cat colab/pins-gpu.txt colab/setup_cell.py pyproject.toml | sha256sum)
[ "$(cat $env/.made 2> /dev/null)" != "$made" ] || exit 0

echo "Setting up $env, the versions of Colab's GPU runtime, about a minute ..."
there=$(mktemp -d)
trap 'rm -rf "$there"' EXIT
.venv/bin/python -m pip download -qq --disable-pip-version-check --no-deps -d "$there" packaging > /dev/null 2>&1 ||
    { echo "No package index can be reached."; exit 3; }
rm -rf $env
.venv/bin/python -m venv $env
pip() { $env/bin/python -m pip "$@" -qq --disable-pip-version-check; }
pip install -r colab/pins-gpu.txt
(cd notebooks && PIP_DISABLE_PIP_VERSION_CHECK=1 "../$env/bin/python" ../colab/setup_cell.py)
pip install -c colab/pins-gpu.txt pytest pytest-timeout hypothesis beartype nbmake psutil rlax
changed=$($env/bin/python -m pip freeze --disable-pip-version-check 2> /dev/null | tr '[:upper:]' '[:lower:]' |
    grep -vxFf - <(grep -v '^#' colab/pins-gpu.txt) || true)
[ -z "$changed" ] || { echo "the setup cell changed what Colab has: $changed"; exit 1; }
echo "$made" > $env/.made
