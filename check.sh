#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Build and test. Every line before the last ctest is progress; its summary is the result.
#
#   ./check.sh        release build, every quick test, a short run of the real model: 10 minutes at most
#   ./check.sh all    also the stages below: 45 minutes at most on two cores
#
# Installs nothing unless packages are missing; fetches the demo's model (98 MB) once.
set -u
cd "$(dirname "$0")" || exit 1
jobs=$(nproc)

say() {
    printf '\n== %s (%s)\n' "$*" "$(date +%H:%M:%S)"
}

# configure FOLDER [cmake's words]: generate, quietly unless it fails
configure() {
    folder=$1
    shift
    mkdir -p "$folder"
    if ! cmake -S . -B "$folder" -G Ninja "$@" >"$folder/configure.log" 2>&1; then
        cat "$folder/configure.log"
        return 1
    fi
}

# tests FOLDER [ctest's words]
tests() {
    folder=$1
    shift
    # Programs side by side share the cores: threads that wait must sleep.
    OMP_WAIT_POLICY=passive ctest --test-dir "$folder" --output-on-failure -j "$jobs" "$@"
}

# stage NAME COMMAND...: run it, and leave its outcome where ctest will read it
stage() {
    name=$1
    shift
    say "stage $name"
    if "$@"; then
        echo passed >"build/stages/$name"
    else
        echo "stage $name failed"
        echo failed >"build/stages/$name"
    fi
}

# Asserts, address and undefined-behaviour sanitizers, warnings are errors. The
# real model is too slow under them.
stage_sanitized() {
    configure build-dev -DCMAKE_BUILD_TYPE=RelWithDebInfo -DARTEL_WERROR=ON \
        -DARTEL_SANITIZE=address,undefined &&
        cmake --build build-dev && (
        unset ARTEL_TEST_MODEL
        tests build-dev -LE 'style|stage'
    )
}

stage_clang() {
    configure build-clang -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_COMPILER=clang \
        -DARTEL_WERROR=ON &&
        cmake --build build-clang && (
        unset ARTEL_TEST_MODEL
        tests build-clang -LE 'style|stage'
    )
}

# The release build's tests once more with the kernels of a lesser CPU.
stage_cpu_ref() (
    unset ARTEL_TEST_MODEL
    ARTEL_CPU=ref tests build -LE 'style|stage'
)

stage_cpu_avx2() {
    ARTEL_CPU=avx2 tests build -LE 'style|stage'
}

stage_fuzz() {
    configure build-fuzz -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_C_COMPILER=clang \
        -DARTEL_FUZZ=ON -DARTEL_SANITIZE=address,undefined &&
        scripts/fuzz.sh build-fuzz 60
}

# Others' programs talk to the server, then many clients at once.
stage_clients() {
    scripts/get-clients.sh build/clients &&
        ARTEL=$PWD/build/artel TESTS=$PWD/tests CLIENTS=$PWD/build/clients \
            sh tests/clients/clients.sh
}

stage_load() {
    ARTEL=$PWD/build/artel TESTS=$PWD/tests LOAD=$PWD/build/bench/load \
        sh tests/clients/load.sh &&
        ARTEL=$PWD/build-dev/artel TESTS=$PWD/tests LOAD=$PWD/build/bench/load \
            ANY_MEMORY=1 REQUESTS=300 CLIENTS_AT_ONCE=16 sh tests/clients/load.sh
}

stage_install() {
    scripts/check-install.sh build
}

stages="sanitized clang cpu_ref cpu_avx2 clients load fuzz install"
words=
case ${1-} in
'') stages= ;;
all) words=all ;;
*)
    echo "usage: $0 [all]" >&2
    exit 2
    ;;
esac

scripts/install-packages.sh $words || exit 1
if [ -z "${ARTEL_TEST_MODEL-}" ]; then
    if scripts/get-model.sh; then
        ARTEL_TEST_MODEL=$PWD/models/SmolLM2-135M-Instruct.Q4_1.gguf
        export ARTEL_TEST_MODEL
    else
        echo "No model: tests that need it are skipped." >&2
    fi
fi

say "release build"
rm -rf build/stages
mkdir -p build/stages
configure build -DCMAKE_BUILD_TYPE=Release \
    "-DARTEL_STAGES=$(echo "$stages" | tr ' ' ';')" && cmake --build build || exit 1

for name in $stages; do
    stage "$name" "stage_$name"
done

say "tests"
tests build
