#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Each row of tests/style/rows.txt is named by the tests that it tells of: s09, S09 or
# S09_... in the text, letters of a part (s09b) allowed.
#
#   tests/style/rows.sh ROOT
cd "$1/tests" || exit 2
bad=0

while read -r id rest; do
    case $id in
    '' | '#'*) continue ;;
    esac
    case $rest in
    'by hand: '?*) continue ;;
    'by hand:'* | '')
        echo "$id: neither a test nor a reason"
        bad=1
        continue
        ;;
    esac
    for file in $rest; do
        # A letter or digit on either side makes it another word.
        if ! grep -qiE "(^|[^A-Za-z0-9])$id[a-z]?([^A-Za-z0-9]|\$)" "$file"; then
            echo "$id is not named in tests/$file"
            bad=1
        fi
    done
done <style/rows.txt
exit "$bad"
