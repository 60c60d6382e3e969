#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A real model answers, in fp32 and in what the CPU does best. ARTEL_TEST_MODEL names it.
set -u
[ -n "${ARTEL_TEST_MODEL:-}" ] || exit 77
bad=0
for precision in fp32 auto; do
    out=$("$ARTEL" run "$ARTEL_TEST_MODEL" --prompt 'What is the capital of France?' \
        --max-tokens 12 --temperature 0 --precision $precision 2>&1)
    case $out in
    *Paris*) ;;
    *) echo "$precision: $out"; bad=1 ;;
    esac
done
printf 'What is the capital of France?\nWhat is its biggest river?\n' |
    "$ARTEL" chat "$ARTEL_TEST_MODEL" --max-tokens 12 --temperature 0 | grep -c '^\[base, ' |
    grep -qx 2 || { echo "chat: not two answers"; bad=1; }
exit "$bad"
