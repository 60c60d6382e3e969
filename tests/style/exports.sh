#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Libraries show nothing but names that begin with artel_.
#
#   tests/style/exports.sh LIBRARY...
bad=0
for library in "$@"; do
    dynamic=
    case $library in
    *.so*) dynamic=-D ;;
    esac
    # shellcheck disable=SC2086
    strange=$(nm -g $dynamic --defined-only "$library" |
        awk 'NF == 3 && $3 !~ /^(artel_|[.]gomp_critical_user_artel_|__asan_|__odr_asan)/ { print "  " $3 }')
    if [ -n "$strange" ]; then
        echo "$library exports names that do not begin with artel_:"
        echo "$strange"
        bad=1
    fi
done
exit "$bad"
