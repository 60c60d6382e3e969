#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# docs/images/page.png: the page of a server that serves the demo's mixture.
#
#   build/artel serve runs/demo/moa &
#   scripts/screenshot.sh [ADDRESS [FILE]]      http://127.0.0.1:8080/, docs/images/page.png
set -eu
cd "$(dirname "$0")/.."
address=${1-http://127.0.0.1:8080/}
file=${2-docs/images/page.png}
mkdir -p "$(dirname "$file")"
python3 -B tests/browser/screenshot.py "$address" "$file" \
    'Table plants (id, name, height, colour). List the height whose colour is green.' \
    'Date: the third of May in 1999'
size=$(wc -c <"$file")
if [ "$size" -ge 204800 ]; then
    echo "$file has $size bytes, more than a README should carry" >&2
    exit 1
fi
