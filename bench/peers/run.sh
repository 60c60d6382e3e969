#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Others and artel in turns on the same CPUs, each measurement a row of bench/results/*.csv,
# and the table of ratios on standard output.
#
#   bench/peers/run.sh [WORK...]        W P256 P1000 D1; all of them where none is named
#   MIXTURE=runs/demo/moa bench/peers/run.sh S    the servers, see serve.py
#
#   ARTEL=build/artel            the program
#   MODEL=models/...Q4_1.gguf    for P256, P1000, D1 and S
#   LLAMA_SERVER=.../llama-server    for S; built by setup.sh where not given
#   PEERS_DIR=~/.cache/artel-peers   where the others are installed
#   VENV=$PEERS_DIR/venv         a virtual environment that may have them already
#   ROUNDS=5 STEPS=5             rounds of all programs, repeats in each
#   CPUS=0,1                     CPUs for all of them; those that are allowed
#   ONLY=TEXT[,TEXT...]          only settings with one of these texts in their name
#   LAYERS=2                     of the model of W and of random weights; to try the scripts
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
PEERS_DIR=${PEERS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/artel-peers}
VENV=${VENV:-$PEERS_DIR/venv}
ARTEL=${ARTEL:-$root/build/artel}
MODEL=${MODEL:-$root/models/SmolLM2-135M-Instruct.Q4_1.gguf}
export PEERS_DIR VENV ARTEL MODEL

[ -x "$ARTEL" ] || { echo "no program at $ARTEL; 'make' builds it, or set ARTEL" >&2; exit 2; }
if [ "${1:-}" = S ]; then
    [ $# = 1 ] || { echo "S is a work of its own: leave out '$2'" >&2; exit 2; }
    [ -n "${MIXTURE:-}" ] || { echo "set MIXTURE to a mixture of $MODEL" >&2; exit 2; }
    if [ -z "${LLAMA_SERVER:-}" ]; then
        sh "$here/setup.sh" server
        LLAMA_SERVER=$PEERS_DIR/llama/build/bin/llama-server
    fi
    export LLAMA_SERVER MIXTURE
    exec python3 "$here/serve.py" --results "$root/bench/results"
fi
sh "$here/setup.sh"
if [ -n "${LAYERS:-}" ]; then
    W_MODEL=$PEERS_DIR/135m-$LAYERS.gguf
    [ -f "$W_MODEL" ] || "$(dirname "$ARTEL")/bench/make_model" 135m F32 "$W_MODEL" "$LAYERS"
    export W_MODEL
fi
exec "$VENV/bin/python" "$here/turns.py" --results "$root/bench/results" "$@"
