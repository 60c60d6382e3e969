#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every C file is as clang-format 14 leaves it. 77 (skipped) without that version.
#
#   tests/style/format.sh ROOT
cd "$1" || exit 2
for tool in clang-format-14 clang-format; do
    case $("$tool" --version 2>/dev/null) in
    *'version 14.'*) ;;
    *) continue ;;
    esac
    wrong=$(find src include tests bench examples -name '*.[ch]' | sort |
        xargs "$tool" --dry-run 2>&1 | sed -n 's/^\([^ :]*\):[0-9].*clang-format.*/\1/p' | uniq)
    [ -n "$wrong" ] || exit 0
    echo "make format would change:"
    echo "$wrong"
    exit 1
done
echo "no clang-format 14 here"
exit 77
