#!/usr/bin/env bash
# The tests, on the CPU, two suites at a time: tests/*.py, each folder of tests/, each notebook at its smallest size.
# Prints each suite when it ends, then the times, and ends with "N passed, M failed".
# Usage: scripts/test.sh [--all] [SUITE ...], e.g. scripts/test.sh envs 02_masked_ppo; TEST_LANES=1 runs one at a time.
set -uo pipefail
cd "$(dirname "$0")/.."

which_tests=(-m "not slow and not bench")
if [ "${1:-}" = --all ]; then
    which_tests=(-m "not bench")
    shift
fi
only=" $* "

export JAX_PLATFORMS=cpu MPLBACKEND=agg WANDB_MODE=disabled
caches=${JAX_COMPILATION_CACHE_DIR:-$PWD/.jax_cache}
export PYDEVD_DISABLE_FILE_VALIDATION=1 # the kernels' debugger otherwise complains about frozen modules
reports=.reports
rm -rf "$reports"
mkdir -p "$reports"
runs=$(mktemp -d)
lanes=()
trap 'for pid in ${lanes[@]+"${lanes[@]}"}; do kill -- "-$pid" 2> /dev/null; done; rm -rf "$runs"' EXIT

found=()
[ -z "$(find tests -maxdepth 1 -name 'test_*.py' -print -quit)" ] || found+=(tests)
for folder in tests/*/; do
    [ -z "$(find "$folder" -name 'test_*.py' -print -quit)" ] || found+=("$(basename "$folder")")
done
for notebook in notebooks/[0-9][0-9]_*.ipynb; do
    [ ! -f "$notebook" ] || found+=("$(basename "$notebook" .ipynb)")
done
[ ! -f .venv/colab/.made ] || found+=(colab colab_02_masked_ppo) # at Colab's versions
suites=()
for name in agents envs run crash sweeps 04_dreamer 05_memory_tuning 06_hackmatrix tests notebooks colab_02_masked_ppo "${found[@]}"; do # the longest first
    [ "$only" = "  " ] || [[ $only == *" $name "* ]] || continue
    [[ " ${found[*]} " != *" $name "* ]] || [[ " ${suites[*]-} " == *" $name "* ]] || suites+=("$name")
done

suite() { # suite NAME: its tests, with the report in $reports/NAME.*
    local name=$1 what=("${which_tests[@]}") python=.venv/bin/python
    # Programs are kept however fast they compiled: each process and kernel would otherwise compile its hundreds of small
    # ones anew. Not in sweeps, where kernels that start together would read each other's half-written entries.
    [ "$name" = sweeps ] || export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
    if [[ $name == colab* ]]; then
        python=.venv/colab/bin/python JAX_COMPILATION_CACHE_DIR=$JAX_COMPILATION_CACHE_DIR/colab
        export PYTHONPATH=$PWD # not the copy that the setup cell has installed there
        name=${name#colab_}
    fi
    if [ "$name" = colab ]; then
        what+=(tests/kernels tests/networks tests/test_doctor.py tests/run/test_cache.py)
        what+=(tests/show/test_widgets.py tests/show/test_trace.py tests/show/test_memory_picture.py)
    elif [ "$name" = tests ]; then
        what+=(tests/test_*.py)
    elif [ -d "tests/$name" ]; then
        what+=("tests/$name")
    else
        export MXNB_PRESET=smoke MXNB_RUN_DIR="$runs/$1" MXNB_WIDGETS=off
        # Almost all of this one is compiling the game, which is quicker so. Notebook 03 takes longer: its tables run.
        [ "$name" != 06_hackmatrix ] || export JAX_DISABLE_MOST_OPTIMIZATIONS=1
        what=(--nbmake --nbmake-timeout=900 "notebooks/$name.ipynb")
    fi
    $python -m pytest -q "${what[@]}" --junitxml="$reports/$1.xml" < /dev/null
}

# Each lane takes the next suite that none has claimed. Their compilation caches are apart: jax writes into one without a
# lock, and half an entry read by the other lane would be a warning, which fails a test.
lane() { # lane NUMBER
    set +m
    export JAX_COMPILATION_CACHE_DIR=$caches/lane-$1
    for name in "${suites[@]}"; do
        mkdir "$reports/$name.claimed" 2> /dev/null || continue
        local start=$SECONDS code=0
        echo "---- $name begins (read along: $reports/$name.log)"
        (suite "$name") > "$reports/$name.log" 2>&1 || code=$?
        echo "$name $((SECONDS - start)) s" > "$reports/$name.time"
        cat "$reports/$name.log" <(echo "---- $name: $((SECONDS - start)) s")
        echo "$code" > "$reports/$name.exit"
    done
}

set -m # a process group each: so that tests may be interrupted, and all of them end with this script
for number in $(seq "${TEST_LANES:-2}"); do
    lane "$number" &
    lanes+=($!)
done
for pid in "${lanes[@]}"; do wait "$pid"; done
lanes=()
for name in "${suites[@]}"; do
    [ -f "$reports/$name.exit" ] || echo 1 > "$reports/$name.exit" # its lane was killed
done
[ ! -f .venv/colab.failed ] || [ "$only" != "  " ] || echo 1 > "$reports/colab_env.exit"
echo "times: $(cat "$reports"/*.time 2> /dev/null | paste -sd, - | sed 's/,/, /g')"
.venv/bin/python scripts/count_tests.py "$reports"
