#!/bin/sh
# Set up .venv from the hash-locked requirements: "scripts/setup.sh runtime" to run the program, "scripts/setup.sh dev"
# to test it as well. Safe to repeat: it does nothing while the lock is the one that was installed, and begins anew
# after an installation that was interrupted.
set -eu
cd "$(dirname "$0")/.."

die() {
    echo "setup: $*" >&2
    exit 1
}

. scripts/system-packages.sh

# The newest Python that every locked package has a wheel for. A name on the path may be a shim that does not start.
find_python() {
    for name in python3.13 python3.12 python3.11 python3 python; do
        if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            "$name" -c 'import sys; print(sys.executable)'
            return
        fi
    done
}

ensure_system() {
    python=$(find_python)
    [ -n "$python" ] || die "Python 3.11, 3.12 or 3.13 is needed, and none was found. On Debian 12, run this, then try again:
    sudo sh -c 'apt-get update && apt-get install --yes python3 python3-venv'"
    missing=
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        missing="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    fi
    if [ "$wanted" = dev ]; then
        for program in curl openssl git chromium wrk; do
            command -v "$program" >/dev/null || missing="$missing $program"
        done
        # The token of the tests in software; its package is named otherwise than its program.
        command -v softhsm2-util >/dev/null || missing="$missing softhsm2"
        # Of PostgreSQL the tests run the programs only, which Debian keeps off the path.
        ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$missing postgresql"
        # A browser without any font shows no text.
        [ -d /usr/share/fonts/truetype/dejavu ] || missing="$missing fonts-dejavu-core"
    fi
    # Unquoted on purpose: one word for each package.
    if [ -n "$missing" ]; then install_system_packages $missing; fi
}

# What must be the same for an earlier installation to count: the lock, the project's description, the place.
fingerprint() {
    cat "$1" pyproject.toml | cksum
    pwd
}

is_installed() {
    [ -f ".venv/$1.installed" ] && [ "$(cat ".venv/$1.installed")" = "$(fingerprint "$(lock_of "$1")")" ] &&
        .venv/bin/python -c '' 2>/dev/null
}

lock_of() {
    if [ "$1" = dev ]; then echo requirements-dev.lock; else echo requirements.lock; fi
}

install_all() {
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
    if [ -f .venv/installing ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then rm -rf .venv; fi
    mkdir -p .venv
    rm -f .venv/*.installed
    touch .venv/installing
    if [ ! -x .venv/bin/python ]; then
        echo "Creating .venv with $("$python" --version)."
        "$python" -m venv .venv
    fi
    echo "Installing $(lock_of "$wanted"); the first time takes a minute."
    .venv/bin/python -m pip install -qq --require-hashes --no-deps --only-binary :all: \
        --requirement "$(lock_of "$wanted")"
    # The build tools came with the lock, so nothing is fetched for this step.
    .venv/bin/python -m pip install -qq --no-deps --no-index --no-build-isolation --editable .
    fingerprint requirements.lock >.venv/runtime.installed
    if [ "$wanted" = dev ]; then fingerprint requirements-dev.lock >.venv/dev.installed; fi
    rm .venv/installing
}

wanted=${1:-runtime}
case $wanted in runtime | dev) ;; *) die "usage: scripts/setup.sh [runtime|dev]" ;; esac

# Two at once (a demo here, the tests there) would break each other's installation: the second waits for the first.
exec 9<scripts
if command -v flock >/dev/null; then flock 9; fi

if [ "$wanted" = dev ]; then ensure_system; fi
if ! is_installed "$wanted"; then
    if [ "$wanted" = runtime ]; then ensure_system; fi
    install_all
fi
# A node that cannot be had is named here, and the tests that need it say so: it stops nothing.
if [ "$wanted" = dev ]; then scripts/get-nodes.sh --daily || true; fi
