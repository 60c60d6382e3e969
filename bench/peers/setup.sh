#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A virtual environment with the programs that artel is compared with, outside of the
# repository. Nothing is done where VENV has them.
#
#   PEERS_DIR=~/.cache/artel-peers VENV=$PEERS_DIR/venv bench/peers/setup.sh
#   bench/peers/setup.sh server    llama.cpp's server instead, which takes ten minutes
set -eu
PEERS_DIR=${PEERS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/artel-peers}
VENV=${VENV:-$PEERS_DIR/venv}
mkdir -p "$PEERS_DIR"
[ -x "$VENV/bin/python" ] || python3 -m venv "$VENV"

# The AMX kernels of llama.cpp crash on some virtual machines, so that CPU gets the same
# build without them; elsewhere the build is for the CPU at hand.
flags='-DGGML_NATIVE=ON'
if grep -qw amx_tile /proc/cpuinfo; then
    flags='-DGGML_NATIVE=OFF -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON'
    flags="$flags -DGGML_AVX512_BF16=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON"
fi

# The sources of llama-cpp-python have those of llama.cpp in them, its server's too.
build_server() {
    where=$PEERS_DIR/llama
    [ ! -x "$where/build/bin/llama-server" ] || return 0
    mkdir -p "$where"
    "$VENV/bin/python" -m pip download --no-deps --no-binary llama-cpp-python \
        -d "$where" llama-cpp-python >&2
    for file in "$where"/llama_cpp_python-*.tar.gz; do
        tar -xzf "$file" -C "$where"
    done
    for source in "$where"/llama_cpp_python-*/vendor/llama.cpp; do
        # $flags are several words.
        cmake -S "$source" -B "$where/build" -DCMAKE_BUILD_TYPE=Release $flags \
            -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
            -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF >&2
    done
    cmake --build "$where/build" --target llama-server -j "$(nproc)" >&2
}

if [ "${1:-}" = server ]; then
    build_server
    exit 0
fi

has() {
    "$VENV/bin/python" -c "
import importlib.util, sys
sys.exit(any(importlib.util.find_spec(m) is None for m in sys.argv[1:]))" "$@"
}

has torch transformers peft ||
    "$VENV/bin/python" -m pip install torch transformers peft >&2

if ! has llama_cpp; then
    CMAKE_ARGS="$flags" "$VENV/bin/python" -m pip install --no-binary llama-cpp-python \
        llama-cpp-python >&2
fi
