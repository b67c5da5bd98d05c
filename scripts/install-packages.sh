#!/usr/bin/env bash
# Installs Debian packages without letting them start or enable their daemons. Runs as root:
#   install-packages.sh PACKAGE...
# Packages that are installed already are left alone, with their daemons as they are.
set -euo pipefail

policy=/usr/sbin/policy-rc.d
mark="Written by scripts/install.sh of Soulfra Monitor"
written=no

say() { printf 'install: %s\n' "$*" >&2; }

forget_policy() {
    if [ "$written" = yes ]; then
        rm -f "$policy"
        written=no
    fi
}

# Debian's way to keep packages from starting daemons. One that is there is somebody else's and is never touched.
forbid_starting() {
    if [ -e "$policy" ] && grep -qs "$mark" "$policy"; then
        rm -f "$policy" # an earlier run was killed
    fi
    if [ -e "$policy" ]; then
        local answer=0
        "$policy" prometheus start >/dev/null 2>&1 || answer=$?
        [ "$answer" = 101 ] && return
        say "$policy exists and lets daemons start, and is not ours to change; please install yourself: apt-get install $*"
        exit 1
    fi
    local draft
    draft=$(mktemp "$policy.XXXXXX")
    # Should this script be killed, the policy ends with it: asked without it alive, it removes itself and allows.
    cat >"$draft" <<END
#!/bin/sh
# $mark for the time of one installation.
if kill -0 $$ 2>/dev/null; then exit 101; fi
rm -f $policy
exit 0
END
    chmod 755 "$draft"
    if ln "$draft" "$policy" 2>/dev/null; then # fails, rather than overwrites, when somebody was faster
        written=yes
    fi
    rm -f "$draft"
    [ "$written" = yes ] || forbid_starting "$@"
}

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# Their start at the next boot is not ours to decide either.
disable_daemon() {
    local service=$1
    case $1 in
    prometheus | prometheus-alertmanager | redis-server) ;;
    prometheus-blackbox-exporter | postgresql) ;;
    nginx-light) service=nginx ;;
    mariadb-server) service=mariadb ;;
    docker.io) service=docker ;;
    *) return ;;
    esac
    if command -v systemctl >/dev/null; then
        systemctl disable --quiet "$service.service" 2>/dev/null || say "please check: systemctl is-enabled $service"
    elif command -v update-rc.d >/dev/null; then
        update-rc.d "$service" disable >/dev/null 2>&1 || say "please check: $service may start at boot"
    fi
}

new=()
for package in "$@"; do
    is_installed "$package" || new+=("$package")
done
[ ${#new[@]} -gt 0 ] || exit 0

trap forget_policy EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
forbid_starting "${new[@]}"
export DEBIAN_FRONTEND=noninteractive
say "installing ${new[*]}; their daemons are neither started nor enabled"
apt-get update -qq
apt-get install -qq -y --no-install-recommends "${new[@]}" >/dev/null
for package in "${new[@]}"; do
    disable_daemon "$package"
done
