#!/usr/bin/env bash
# Debian packages that some tests use: chromium, which tests/browser drives. Without them those tests are skipped.
set -uo pipefail

wanted=(chromium)
missing=()
for name in "${wanted[@]}"; do
    command -v "$name" > /dev/null || missing+=("$name")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "Without root's apt-get, ${missing[*]} is not installed; the tests that need it are skipped."
    exit 0
fi
echo "Installing ${missing[*]} for the tests that open pages in a browser ..."
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" fonts-dejavu-core; } > "$log" 2>&1 ||
    { tail -n 3 "$log"; echo "${missing[*]} could not be installed; the tests that need it are skipped."; }
rm -f "$log"
