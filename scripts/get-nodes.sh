#!/bin/sh
# Install the chain nodes that the tests run into .nodes: bitcoind and bitcoin-cli, litecoind, anvil. Nothing is
# installed on the system, and root is not needed. Safe to repeat: a node that is there as this script makes it is left
# alone. A node that cannot be had is named in one line, and does not stop the others; the exit code is then 1.
# With --daily, a node that could not be had today is not tried again before tomorrow.
set -u
cd "$(dirname "$0")/.."

daily=
case ${1:-} in
'') ;;
--daily) daily=yes ;;
*)
    echo "usage: scripts/get-nodes.sh [--daily]" >&2
    exit 2
    ;;
esac

nodes=$PWD/.nodes
mkdir -p "$nodes/bin" || exit 1
# Two at once would unpack over each other: the second waits for the first.
exec 8<"$nodes"
if command -v flock >/dev/null; then flock 8; fi
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# What must be the same for an earlier installation to count.
fingerprint=$(cat scripts/get-nodes.sh scripts/nodes/package.json scripts/nodes/package-lock.json | cksum)

# Say why a node cannot be had: the first reason is the one that is printed.
because() {
    [ -s "$work/reason" ] || echo "$*" >"$work/reason"
    return 1
}

need() {
    for program in "$@"; do
        command -v "$program" >/dev/null || because "$program is not on this machine" || return 1
    done
}

# An apt of our own: its lists, its archives, and a status file in which nothing is installed, so that the library
# closure of a package is the whole one. Its sources are the one line given, or the machine's own.
use_private_apt() {
    apt=$work/apt
    rm -rf "$apt"
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/debs"
    : >"$apt/status"
    {
        printf 'Dir::State "%s"; Dir::State::status "%s/status"; Dir::Cache "%s";\n' "$apt" "$apt" "$apt"
        # In a folder that only we may read, apt's own unprivileged user could not work.
        printf 'APT::Sandbox::User "root"; Acquire::Languages "none";\n'
        printf 'APT::Update::Error-Mode "any"; Acquire::Retries "1";\n'
        printf 'Acquire::http::Timeout "30"; Acquire::https::Timeout "30";\n'
        if [ -n "$1" ]; then
            echo "$1" >"$apt/sources.list"
            printf 'Dir::Etc::sourcelist "%s/sources.list"; Dir::Etc::sourceparts "/dev/null";\n' "$apt"
            printf 'Dir::Etc::preferences "/dev/null"; Dir::Etc::preferencesparts "/dev/null";\n'
        fi
    } >"$apt/apt.conf"
    export APT_CONFIG="$apt/apt.conf"
}

# Where this machine has Debian's packages from, and the name of its release: "ADDRESS RELEASE".
debian_of_the_machine() {
    # shellcheck disable=SC2016 # apt fills these in, not the shell.
    apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 2>/dev/null |
        grep -m1 -E '/debian/? [a-z]+$'
}

find_debian() {
    if [ -n "${debian:-}" ]; then return; fi
    need apt-get dpkg-deb || return 1
    debian=$(unset APT_CONFIG && debian_of_the_machine)
    if [ -z "$debian" ]; then
        # A machine that has never fetched its lists does not know its targets either.
        use_private_apt ""
        apt-get -q update >/dev/null 2>&1
        debian=$(debian_of_the_machine)
    fi
    [ -n "$debian" ] || because "this machine has no Debian packages to take it from"
}

# unpack NODE PACKAGE RELEASE: unpack a Debian package and every library it needs into .nodes/NODE.new.
unpack() {
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -r "$keyring" ] || because "Debian's keys are not on this machine (debian-archive-keyring)" || return 1
    use_private_apt "deb [signed-by=$keyring] ${debian% *} $3 main"
    apt-get -q update >"$work/log" 2>&1 || because "the packages of Debian $3 cannot be reached" || return 1
    # Of all that the package asks for only the libraries are loaded; nothing is configured.
    packages=$(apt-get -s --no-install-recommends install "$2" 2>"$work/log" | awk '/^Inst/ { print $2 }' |
        grep -E "^(lib|zlib|$2\$)" | grep -vE '^(libc-gconv|libc-bin)')
    echo "$packages" | grep -qx "$2" || because "Debian $3 has no package $2 to install here" || return 1
    # Unquoted on purpose: one word for each package.
    (cd "$apt/debs" && apt-get -q download $packages >"$work/log" 2>&1) ||
        because "the packages of $2 could not be fetched" || return 1
    rm -rf "$nodes/$1.new"
    mkdir "$nodes/$1.new"
    for package in "$apt"/debs/*.deb; do
        dpkg-deb -x "$package" "$nodes/$1.new" || because "$package cannot be unpacked" || return 1
    done
    # Manuals and translations are of no use here.
    rm -rf "$nodes/$1.new/usr/share"
}

# start_script NODE PROGRAM: a script that runs an unpacked program with its own loader and libraries, whatever the
# system's are. The program takes the script's place, so the process id of one is that of the other.
start_script() {
    root=$nodes/$1.new
    # The loader itself: the link to it that some packages hold leads to the system's.
    loader=$(cd "$root" && find . -type f -name 'ld-linux*.so.*' | head -n 1)
    libraries=$(cd "$root" && find . -type d -name '*-linux-gnu*' -path '*lib/*' -prune |
        sed 's|^\.|$root|' | paste -sd :)
    # What stands in usr/bin may be a script that starts the program proper.
    binary=usr/bin/$2
    for place in "$root"/usr/lib/*/"$2"; do
        if [ -f "$place" ]; then binary=${place#"$root"/}; fi
    done
    [ -n "$loader" ] && [ -n "$libraries" ] && [ -x "$root/$binary" ] ||
        because "its packages do not hold what they should" || return 1
    cat >"$work/$2" <<SCRIPT
#!/bin/sh
root=\$(cd "\$(dirname "\$0")/../$1" && pwd)
exec "\$root/${loader#./}" --library-path "$libraries" "\$root/$binary" "\$@"
SCRIPT
    chmod 755 "$work/$2"
}

# from_debian NODE PACKAGE RELEASE PROGRAM...
from_debian() {
    node=$1 package=$2 release=$3
    shift 3
    unpack "$node" "$package" "$release" || return 1
    for program in "$@"; do start_script "$node" "$program" || return 1; done
    rm -rf "${nodes:?}/$node"
    mv "$nodes/$node.new" "$nodes/$node"
    for program in "$@"; do mv "$work/$program" "$nodes/bin/$program"; done
}

# Debian's newest has it, its releases do not; its libraries come along, so it runs beside older ones.
install_bitcoind() {
    find_debian && from_debian bitcoind bitcoin-knots sid bitcoind bitcoin-cli
}

install_litecoind() {
    find_debian && from_debian litecoind litecoind "${debian#* }" litecoind
}

install_anvil() {
    need node npm || return 1
    rm -rf "$nodes/anvil.new"
    mkdir "$nodes/anvil.new"
    cp scripts/nodes/package.json scripts/nodes/package-lock.json scripts/nodes/.npmrc "$nodes/anvil.new"
    # One short retry: npm's own would have whoever is offline wait for minutes.
    (cd "$nodes/anvil.new" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error --prefer-offline \
        --fetch-retries=1 --fetch-retry-mintimeout=2000 --fetch-timeout=60000) >"$work/log" 2>&1 ||
        because "npm could not install it" || return 1
    [ -e "$nodes/anvil.new/node_modules/.bin/anvil" ] || because "its package does not hold the program" || return 1
    rm -rf "$nodes/anvil"
    mv "$nodes/anvil.new" "$nodes/anvil"
    ln -sfn ../anvil/node_modules/.bin/anvil "$nodes/bin/anvil"
}

# get NODE: install a node unless it is there already; the stamp tells which, and the program itself whether it runs.
get() {
    stamp=$nodes/$1.installed tried=$nodes/$1.tried today="$fingerprint $(date +%Y-%m-%d)"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$fingerprint" ] && [ -x "$nodes/bin/$1" ]; then return; fi
    if [ -n "$daily" ] && [ "$(head -n 1 "$tried" 2>/dev/null)" = "$today" ]; then
        echo "get-nodes: no $1: $(tail -n 1 "$tried") (not tried again today; 'make nodes' does)" >&2
        return 1
    fi
    echo "Installing $1 into .nodes; this takes some seconds."
    rm -f "$stamp" "$work/reason" "$work/log"
    if "install_$1" && { "$nodes/bin/$1" --version >"$work/log" 2>&1 || because "it does not run here"; }; then
        echo "$fingerprint" >"$stamp"
        rm -f "$tried"
        return
    fi
    detail=$(grep -m1 -E '^(E:|npm error|error)|error' "$work/log" 2>/dev/null | cut -c1-160)
    reason="$(cat "$work/reason" 2>/dev/null || echo "it could not be installed")${detail:+ ($detail)}"
    printf '%s\n%s\n' "$today" "$reason" >"$tried"
    rm -rf "$nodes/$1.new"
    echo "get-nodes: no $1: $reason" >&2
    return 1
}

missing=
for node in bitcoind litecoind anvil; do
    get "$node" || missing=yes
done
[ -z "$missing" ]
