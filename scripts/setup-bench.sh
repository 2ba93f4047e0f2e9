#!/bin/sh
# Set up what "make bench" compares with: wrk, nginx and PostgreSQL from the system's packages, and the FastAPI peer's
# packages in .venv-bench. Safe to repeat. No service is started, and none that runs is touched.
set -eu
cd "$(dirname "$0")/.."

die() {
    echo "setup-bench: $*" >&2
    exit 1
}

. scripts/system-packages.sh

missing_packages() {
    command -v wrk >/dev/null || echo wrk
    [ -x /usr/sbin/nginx ] || command -v nginx >/dev/null || echo nginx-light
    ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null || echo postgresql
}

install_peer() {
    lock=requirements-bench.lock
    if [ -f .venv-bench/installed ] && cmp -s .venv-bench/installed "$lock" && .venv-bench/bin/python -c '' 2>/dev/null
    then
        return
    fi
    echo "Installing $lock into .venv-bench." >&2
    rm -rf .venv-bench
    # The Python that the product runs on, so that the comparison is of programs and not of interpreters.
    .venv/bin/python -m venv .venv-bench
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 .venv-bench/bin/python -m pip install -qq --require-hashes --no-deps \
        --only-binary :all: --requirement "$lock"
    cp "$lock" .venv-bench/installed
}

[ -x .venv/bin/python ] || die "there is no .venv: run 'make dev' before"
# Unquoted on purpose: one word for each package.
missing=$(missing_packages)
if [ -n "$missing" ]; then install_system_packages $missing; fi
install_peer
