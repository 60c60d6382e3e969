#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Build every fuzzer of a configured folder and run each for some seconds, as many
# at a time as there are cores.
#
#   scripts/fuzz.sh BUILD SECONDS [NAME...]
#
# Starts from tests/fuzz/corpus/NAME; what it finds goes to BUILD/fuzz/NAME, and the
# input that broke a fuzzer to BUILD/fuzz/NAME-crash-*.
set -eu
build=$1
seconds=$2
shift 2
source=$(cd "$(dirname "$0")/.." && pwd)
names=${*:-$(cd "$source/tests/fuzz" && ls fuzz_*.c | sed 's/\.c$//')}

# shellcheck disable=SC2086
cmake --build "$build" --target $names
mkdir -p "$build/fuzz"
cd "$build"
failed=

# one NAME: run it, its words into a log, its exit code into a file
one() {
    program=$(find . -type f -name "$1" -perm -u+x | head -n 1)
    seeds=$source/tests/fuzz/corpus/${1#fuzz_}
    [ -d "$seeds" ] || seeds=
    mkdir -p "fuzz/$1"
    status=0
    # shellcheck disable=SC2086
    ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 \
        "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 \
        -print_final_stats=1 -artifact_prefix="fuzz/$1-crash-" "fuzz/$1" $seeds \
        >"fuzz/$1.log" 2>&1 || status=$?
    echo "$status" >"fuzz/$1.status"
}

# batch NAMES: side by side, then what became of each
batch() {
    for name in "$@"; do
        one "$name" &
    done
    wait
    for name in "$@"; do
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "fuzz/$name.log")
        if [ "$(cat "fuzz/$name.status")" = 0 ]; then
            echo "$name: ${runs:-0} inputs in $seconds s, none broke it"
        else
            echo "$name: BROKEN"
            tail -n 40 "fuzz/$name.log"
            failed="$failed $name"
        fi
    done
}

# shellcheck disable=SC2086
set -- $names
while [ $# -gt 0 ]; do
    group=
    for _ in $(seq "$(nproc)"); do
        [ $# -gt 0 ] || break
        group="$group $1"
        shift
    done
    # shellcheck disable=SC2086
    batch $group
done
[ -z "$failed" ]
