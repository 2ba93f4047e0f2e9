# Installing Debian's packages, for the set-up scripts, which read this file and have a `die` of their own.

# Debian starts a service as soon as it is installed, unless this program says no.
without_services() {
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    "$@"
}

# Install packages when we may; otherwise name the one command that does it.
install_system_packages() {
    command="apt-get update && apt-get install --yes --no-install-recommends $*"
    command -v apt-get >/dev/null || die "missing from the system: $*. Install them with its package manager."
    [ "$(id -u)" = 0 ] || die "missing from the system: $*. Run this, which starts what of it is a service, then try again:
    sudo sh -c '$command'"
    echo "Installing from the system's packages: $*" >&2
    without_services env DEBIAN_FRONTEND=noninteractive sh -c "$command" >&2 </dev/null || die "this failed: $command"
}
