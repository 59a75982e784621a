#!/usr/bin/env bash
# Debian packages that some tests use: chromium, which tests/browser drives, and Slurm with munge, on which tests/sweeps
# runs jobs. Without them those tests are skipped.
set -uo pipefail

declare -A packages=([chromium]="chromium fonts-dejavu-core" [sbatch]=slurm-wlm [munged]=munge) # command -> packages
missing=()
for name in chromium sbatch munged; do
    command -v "$name" > /dev/null || [ -x "/usr/sbin/$name" ] || missing+=("$name")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "Without root's apt-get, ${missing[*]} cannot be installed; the tests that need it are skipped."
    exit 0
fi
echo "Installing ${missing[*]} for the tests that open pages in a browser or run jobs on Slurm ..."
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
apt-get update -qq > "$log" 2>&1 || tail -n 3 "$log"
for name in "${missing[@]}"; do # one by one: a package that fails keeps no other away
    read -ra wanted <<< "${packages[$name]}"
    apt-get install -y -qq --no-install-recommends "${wanted[@]}" > "$log" 2>&1 ||
        { tail -n 3 "$log"; echo "${wanted[0]} could not be installed; the tests that need it are skipped."; }
done
rm -f "$log"
exit 0
