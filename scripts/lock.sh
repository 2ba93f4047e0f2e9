#!/bin/sh
# Write the locks anew from pyproject.toml: exact versions, a hash for every file, and no index, host or path.
# A version that is locked already stays where pyproject.toml still allows it; pass --upgrade to move to the newest.
# Needs the development environment: run "make test" or "scripts/setup.sh dev" before.
set -eu
cd "$(dirname "$0")/.."

lock() {
    output=$1
    shift
    if [ -f "$output" ]; then grep -v '^#' "$output" >"$output.new"; fi
    # Unquoted on purpose: no word or one.
    .venv/bin/uv pip compile --universal --python-version 3.11 $no_build \
        --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet \
        --output-file "$output.new" "$@" >/dev/null
    {
        echo "# Made by 'make lock' from pyproject.toml; do not edit."
        cat "$output.new"
    } >"$output"
    rm "$output.new"
}

no_build=--no-build
# The larger set first: what development adds may hold a shared package back, and both must install the same one.
lock requirements-dev.lock pyproject.toml --group build --extra dev "$@"
lock requirements.lock pyproject.toml --group build --constraint requirements-dev.lock "$@"
# The peer of the bench shares nothing with the product but the server it runs on: the same version of that.
lock requirements-bench.lock --group bench --constraint requirements-dev.lock "$@"
# Patroni shares nothing but the driver; what it needs of etcd has no wheel to be read.
no_build=
lock requirements-ha.lock --group ha --constraint requirements-dev.lock "$@"
echo "Wrote requirements.lock, requirements-dev.lock, requirements-bench.lock and requirements-ha.lock."
