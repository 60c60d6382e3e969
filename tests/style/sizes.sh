#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# No C file above 600 lines, no function above 80, and every source file begins
# with its licence.
#
#   tests/style/sizes.sh ROOT
cd "$1" || exit 2

find src include tests bench examples -name '*.[ch]' | sort | xargs awk '
function wrong(line, why) {
    print FILENAME ":" line ": " why
    bad = 1
}
FNR == 1 {
    if ($0 != "/* SPDX-License-Identifier: Apache-2.0 */")
        wrong(1, "the first line must be the SPDX line")
    start = 0
}
FNR == 601 { wrong(601, "more than 600 lines") }
/^\{/ { start = FNR }
/^\}/ {
    if (start && FNR - start - 1 > 80)
        wrong(start, "a function of " FNR - start - 1 " lines")
    start = 0
}
END { exit bad }' || exit 1

bad=0
for file in $(find . -path './build*' -prune -o \( -name '*.sh' -o -name '*.py' \) -print |
    grep -v -e '^./models/' -e '^./runs/' -e '^./data/' | sort); do
    if ! head -n 2 "$file" | grep -qx '# SPDX-License-Identifier: Apache-2.0'; then
        echo "$file:1: no SPDX line"
        bad=1
    fi
done
exit "$bad"
