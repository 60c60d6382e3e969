#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A virtual environment with the programs that artel is compared with, outside of the
# repository. Nothing is done where VENV has them.
#
#   PEERS_DIR=~/.cache/artel-peers VENV=$PEERS_DIR/venv bench/peers/setup.sh
set -eu
PEERS_DIR=${PEERS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/artel-peers}
VENV=${VENV:-$PEERS_DIR/venv}
mkdir -p "$PEERS_DIR"
[ -x "$VENV/bin/python" ] || python3 -m venv "$VENV"

has() {
    "$VENV/bin/python" -c "
import importlib.util, sys
sys.exit(any(importlib.util.find_spec(m) is None for m in sys.argv[1:]))" "$@"
}

has torch transformers peft ||
    "$VENV/bin/python" -m pip install torch transformers peft >&2

# The AMX kernels of llama.cpp crash on some virtual machines, so that CPU gets the same
# build without them; elsewhere the build is for the CPU at hand.
if ! has llama_cpp; then
    flags='-DGGML_NATIVE=ON'
    if grep -qw amx_tile /proc/cpuinfo; then
        flags='-DGGML_NATIVE=OFF -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON'
        flags="$flags -DGGML_AVX512_BF16=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON"
    fi
    CMAKE_ARGS="$flags" "$VENV/bin/python" -m pip install --no-binary llama-cpp-python \
        llama-cpp-python >&2
fi
