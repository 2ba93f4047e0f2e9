#!/bin/sh
# The quick gates, all of them even when one fails, so that one run shows everything there is to mend.
set -u
cd "$(dirname "$0")/.."
export PYTHONPATH=src

failed=
gate() {
    echo "== $*"
    ".venv/bin/$@" || failed="$failed [$*]"
}

gate ruff check .
gate ruff format --check .
gate basedpyright
gate lint-imports --no-logo
gate pytest tests/test_tidy.py

if [ -n "$failed" ]; then
    echo "check: failed:$failed" >&2
    exit 1
fi
echo "check: all gates passed."
