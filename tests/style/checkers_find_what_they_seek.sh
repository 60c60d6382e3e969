#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A checker that cannot fail proves nothing: each must pass a clean tree and refuse
# the same tree with one offence in it.
#
#   tests/style/checkers_find_what_they_seek.sh ROOT
here=$1/tests/style
root=$(mktemp -d)
trap 'rm -rf "$root" "$root.out"' EXIT
bad=0

plant() {
    rm -rf "$root"
    mkdir -p "$root/include" "$root/src/base" "$root/src/files" "$root/src/cli" \
        "$root/tests/style" "$root/bench" "$root/examples"
    for file in include/artel.h src/base/a.h src/base/a.c src/files/b.c src/cli/main.c; do
        echo '/* SPDX-License-Identifier: Apache-2.0 */' >"$root/$file"
    done
    printf '# SPDX-License-Identifier: Apache-2.0\n# S01\n' >"$root/tests/test.sh"
    echo 'S01 test.sh' >"$root/tests/style/rows.txt"
    echo 'struct artel_a;' | tee -a "$root/include/artel.h" >>"$root/src/base/a.h"
    echo '#include "base/a.h"' >>"$root/src/files/b.c"
    echo '#include "artel.h"' >>"$root/src/cli/main.c"
}

# refuses CHECKER FILE LINE: with LINE appended to FILE
refuses() {
    plant
    if ! sh "$here/$1" "$root" >"$root.out" 2>&1; then
        echo "$1 refuses a clean tree:"
        cat "$root.out"
        bad=1
    fi
    printf '%s\n' "$3" >>"$root/$2"
    if sh "$here/$1" "$root" >/dev/null 2>&1; then
        echo "$1 does not see: $3"
        bad=1
    fi
}

refuses includes.sh src/base/a.c '#include "files/b.h"'
refuses includes.sh src/base/a.c '#include "a.h"'
refuses includes.sh src/cli/main.c '#include "base/a.h"'
refuses includes.sh include/artel.h '#include "base/a.h"'
refuses includes.sh src/files/a.c ''
refuses sizes.sh src/base/a.c "$(echo 'int f(void)'; echo '{'; seq 81; echo '}')"
refuses sizes.sh src/base/a.c "$(seq 600)"
refuses sizes.sh src/base/new.c 'int x;'
refuses sizes.sh tests/new.sh 'echo'
refuses leftovers.sh src/base/a.c "$(printf '/* see /%s/me */' home)"
refuses leftovers.sh src/base/a.c "$(printf '/* %s: finish */' todo | tr a-z A-Z)"
refuses rows.sh tests/style/rows.txt 'S02 test.sh'
refuses rows.sh tests/style/rows.txt 'S02 absent.sh'
refuses rows.sh tests/style/rows.txt 'S02 by hand:'
refuses headers.sh src/base/a.h 'size_t n;'
if sh "$here/format.sh" "$root" >/dev/null 2>&1 || [ $? != 77 ]; then
    refuses format.sh src/base/a.c 'int   x;'
fi
exit "$bad"
