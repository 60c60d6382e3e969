#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every header compiles alone, and artel.h also in C++ and with -Wpedantic.
#
#   tests/style/headers.sh ROOT [CC]
cd "$1" || exit 2
cc=${2:-cc}
bad=0
flags="-D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -DARTEL_TESTS=\"t\" -DARTEL_SOURCE=\"s\"
    -Iinclude -Isrc -Itests
    $(pkg-config --cflags jansson yaml-0.1 libcrypto libpcre2-8 libutf8proc cmocka)"

for header in $(find src include tests -name '*.h' | sort); do
    case $header in
    *_avx2.h) isa='-mavx2 -mfma -mf16c' ;;
    *_avx512.h) isa='-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl' ;;
    *bf16.h) isa='-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl
        -mavx512bf16' ;;
    *_amx.h) isa='-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl
        -mavx512bf16 -mamx-tile -mamx-bf16' ;;
    *) isa= ;;
    esac
    # Through standard input: a header given as the main file has warnings of its own.
    # shellcheck disable=SC2086
    if ! echo "#include \"$header\"" |
        "$cc" -std=c11 -Wall -Wextra -Werror -fsyntax-only $flags $isa -I. -x c -; then
        echo "$header does not compile alone"
        bad=1
    fi
done
echo '#include "artel.h"' | "$cc" -std=c11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only \
    -Iinclude -x c - || bad=1
if command -v c++ >/dev/null 2>&1; then
    echo '#include "artel.h"' | c++ -std=c++11 -Wall -Wextra -Wpedantic -Werror \
        -fsyntax-only -Iinclude -x c++ - || bad=1
fi
exit "$bad"
