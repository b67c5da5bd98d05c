#!/usr/bin/env bash
# Installs what is missing to run (and with --dev to test) a checkout: the virtual environment .venv, and on Debian and
# Ubuntu the packages of Prometheus, Alertmanager and Redis. Changes nothing and takes a moment when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

dev=no
[ "${1:-}" = --dev ] && dev=yes

say() { printf 'install: %s\n' "$*" >&2; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

has() { command -v "$1" >/dev/null; }

# Servers live where only root's PATH looks.
has_server() { has "$1" || [ -x "/usr/sbin/$1" ]; }

# One line per missing thing: the Debian package that brings it.
missing_packages() {
    local python
    if python=$(find_python); then
        # Debian ships venv without ensurepip until the package is there.
        "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    elif ! has python3; then
        printf '%s\n' python3 python3-venv
    fi
    has prometheus || echo prometheus
    has prometheus-alertmanager || has alertmanager || echo prometheus-alertmanager
    has redis-server || echo redis-server
    [ "$dev" = no ] || has promtool || echo prometheus
    [ "$dev" = no ] || missing_for_tests
}

# The real parts that tests talk to; the heavy ones in CI only, where a missing part fails.
missing_for_tests() {
    has amtool || echo prometheus-alertmanager
    has prometheus-blackbox-exporter || echo prometheus-blackbox-exporter
    has_server nginx || echo nginx-light
    has_server dnsmasq || echo dnsmasq-base
    has node || echo nodejs
    has npm || echo npm
    [ "${CI:-}" = true ] || return 0
    has postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || echo postgresql
    has_server mariadbd || echo mariadb-server
    has_server dockerd || echo docker.io
    has busybox || echo busybox-static
    has_server debootstrap || echo debootstrap
}

explain_and_stop() {
    say "this needs: $*"
    say "Debian, Ubuntu:  apt-get install $*"
    say "elsewhere:       put the programs prometheus, alertmanager and redis-server on the PATH"
    say "                 (https://prometheus.io/download/ and https://redis.io/), and Python 3.11 or newer with venv"
    exit 1
}

install_packages() {
    has apt-get || explain_and_stop "$@"
    if [ "$(id -u)" = 0 ]; then
        scripts/install-packages.sh "$@"
    elif has sudo && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        say "these packages are missing and are installed with sudo: $*"
        sudo scripts/install-packages.sh "$@"
    else
        explain_and_stop "$@"
    fi
}

# What the environment was made from: when any of it changes, it is made again.
fingerprint() {
    "$1" --version
    pwd
    cksum pyproject.toml
}

make_environment() {
    local python=$1
    # Programs in an environment name its place in their first lines: a moved one is made anew.
    if ! .venv/bin/python -c 'import pip' 2>/dev/null || ! grep -qsF "$(pwd)/.venv/" .venv/bin/pip; then
        say "making the virtual environment .venv with $("$python" --version)"
        "$python" -m venv --clear .venv
    fi
    say "installing the Python packages"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[platform]'
    if [ "$dev" = yes ]; then
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[postgres,mysql,grpc]'
        # pip knows dependency groups since 25.1; Debian 12's is older.
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --group dev
    fi
}

mapfile -t packages < <(missing_packages | sort -u)
[ ${#packages[@]} = 0 ] || install_packages "${packages[@]}"

python=$(find_python) || {
    say "Python 3.11 or newer is needed; python3 here is $(python3 --version 2>&1 || echo missing)"
    say "Debian 12, Ubuntu 24.04 and later have it. With another Python installed: make PYTHON=/path/to/python3.11 ..."
    exit 1
}
stamp=.venv/.installed
[ "$dev" = no ] || stamp=.venv/.installed-dev
if [ "$(cat "$stamp" 2>/dev/null)" != "$(fingerprint "$python")" ]; then
    make_environment "$python"
    fingerprint "$python" | tee "$stamp" >.venv/.installed
fi
