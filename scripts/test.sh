#!/usr/bin/env bash
# The tests, on the CPU, one suite after the other: tests/*.py, each folder of tests/, each notebook at its smallest size.
# Prints each suite's time and ends with "N passed, M failed". Usage: scripts/test.sh [--all] [SUITE ...], e.g. scripts/test.sh envs 02_masked_ppo
set -uo pipefail
cd "$(dirname "$0")/.."

which_tests=(-m "not slow and not bench")
if [ "${1:-}" = --all ]; then
    which_tests=(-m "not bench")
    shift
fi
only=" $* "

export JAX_PLATFORMS=cpu MPLBACKEND=agg WANDB_MODE=disabled
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$PWD/.jax_cache}
export PYDEVD_DISABLE_FILE_VALIDATION=1 # the kernels' debugger otherwise complains about frozen modules
reports=.reports
rm -rf "$reports"
mkdir -p "$reports"
times=""
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT

suite() { # suite NAME PYTEST-ARGUMENTS...
    local name=$1 start=$SECONDS code=0
    shift
    [ "$only" = "  " ] || [[ $only == *" $name "* ]] || return 0
    echo "---- $name"
    .venv/bin/python -m pytest -q "$@" --junitxml="$reports/$name.xml" < /dev/null || code=$?
    echo "$code" > "$reports/$name.exit"
    echo "---- $name: $((SECONDS - start)) s"
    times+="${times:+, }$name $((SECONDS - start)) s"
}

shopt -s nullglob
files=(tests/test_*.py)
[ ${#files[@]} -eq 0 ] || suite tests "${which_tests[@]}" "${files[@]}"
for folder in tests/*/; do
    [ -z "$(find "$folder" -name 'test_*.py' -print -quit)" ] || suite "$(basename "$folder")" "${which_tests[@]}" "$folder"
done
for notebook in notebooks/[0-9][0-9]_*.ipynb; do
    name=$(basename "$notebook" .ipynb)
    MXNB_PRESET=smoke MXNB_RUN_DIR="$runs/$name" suite "$name" --nbmake --nbmake-timeout=900 "$notebook"
done
echo "times: $times"
.venv/bin/python scripts/count_tests.py "$reports"
