#!/bin/sh
# The quick gates, all of them even when one fails, so that one run shows everything there is to mend.
set -u
cd "$(dirname "$0")/.."
export PYTHONPATH=src

said=$(mktemp) || exit 1
# The slowest has a core of its own meanwhile, and speaks when the others are through.
.venv/bin/basedpyright >"$said" 2>&1 &
types=$!
trap 'kill "$types" 2>/dev/null; rm -f "$said"' EXIT
trap 'exit 1' HUP INT TERM

failed=
gate() {
    echo "== $*"
    ".venv/bin/$@" || failed="$failed [$*]"
}

gate ruff check .
gate ruff format --check .
gate lint-imports --no-logo
gate pytest tests/test_tidy.py

echo "== basedpyright"
wait "$types" || failed="$failed [basedpyright]"
cat "$said"

if [ -n "$failed" ]; then
    echo "check: failed:$failed" >&2
    exit 1
fi
echo "check: all gates passed."
