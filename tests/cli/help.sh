#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Help goes to standard output and tells of every command, option and example.
set -u
bad=0
fail() {
    echo "$1"
    bad=1
}

for word in -h --help help; do
    out=$("$ARTEL" $word 2>/dev/null) || fail "artel $word: exit $?"
    echo "$out" | grep -q '^usage: artel COMMAND' || fail "artel $word: no usage"
done
"$ARTEL" --version | grep -Eq '^artel [0-9]+\.[0-9]+\.[0-9]+$' || fail "--version"
[ -z "$("$ARTEL" 2>/dev/null)" ] || fail "no arguments: standard output is not empty"
"$ARTEL" 2>&1 | grep -q '^usage: artel COMMAND' || fail "no arguments: no usage"

commands=$("$ARTEL" -h | sed -n 's/^  \([a-z]*\) .*/\1/p')
[ "$(echo "$commands" | wc -w)" -ge 10 ] || fail "artel -h lists too few commands"
for command in $commands; do
    out=$("$ARTEL" "$command" -h 2>/dev/null) || fail "artel $command -h: exit $?"
    echo "$out" | grep -q "^usage: artel $command " || fail "artel $command -h: no usage"
    echo "$out" | grep -q "^  artel $command " || fail "artel $command -h: no example"
    [ "$(echo "$out" | awk 'length > 88' | wc -l)" = 0 ] || fail "artel $command -h: a long line"
    "$ARTEL" "$command" --version | grep -q '^artel ' || fail "artel $command --version"
    # C03 holds for what an option needs: each option of the help is known. An option
    # with a value takes the first -h for it.
    for option in $(echo "$out" | sed -n 's/^  \(--[a-z-]*\).*/\1/p'); do
        "$ARTEL" "$command" "$option" -h -h 2>&1 | grep -q USE02 &&
            fail "artel $command: $option is in the help and unknown"
    done
done
exit "$bad"
