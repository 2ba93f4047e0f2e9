#!/bin/sh
# Set up what "make ha" runs: PostgreSQL, etcd and HAProxy from the system's packages, and Patroni in .venv-ha. Safe to
# repeat. No service is started, and none that runs is touched.
set -eu
cd "$(dirname "$0")/.."

die() {
    echo "setup-ha: $*" >&2
    exit 1
}

. scripts/system-packages.sh

missing_packages() {
    ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || echo postgresql
    command -v etcd >/dev/null || echo etcd-server
    [ -x /usr/sbin/haproxy ] || command -v haproxy >/dev/null || echo haproxy
    # As root the database runs as somebody else, who may not be able to read root's own Python.
    if [ "$(id -u)" = 0 ] && [ ! -x /usr/bin/python3 ]; then echo python3; fi
}

pip_install() {
    # The pip of .venv, so that a Python without one of its own will do.
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore \
        .venv/bin/python -m pip --python .venv-ha/bin/python install -qq --require-hashes --no-deps "$@"
}

install_patroni() {
    lock=requirements-ha.lock
    if [ -f .venv-ha/installed ] && cmp -s .venv-ha/installed "$lock" && .venv-ha/bin/python -c '' 2>/dev/null; then
        return
    fi
    python=.venv/bin/python
    if [ "$(id -u)" = 0 ]; then python=/usr/bin/python3; fi
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "$python is older than Python 3.11"
    echo "Installing $lock into .venv-ha." >&2
    rm -rf .venv-ha
    "$python" -m venv --without-pip .venv-ha
    # Two packages have no wheel: they are built with the locked tools, which are there by then.
    awk '/^[a-z]/ { source = /^(python-etcd|ydiff)==/ } !source' "$lock" >.venv-ha/wheels.txt
    pip_install --only-binary :all: --requirement .venv-ha/wheels.txt
    pip_install --only-binary :all: --no-binary python-etcd,ydiff --no-build-isolation --requirement "$lock"
    cp "$lock" .venv-ha/installed
}

[ -x .venv/bin/python ] || die "there is no .venv: run 'make dev' before"
# Unquoted on purpose: one word for each package.
missing=$(missing_packages)
if [ -n "$missing" ]; then install_system_packages $missing; fi
install_patroni
