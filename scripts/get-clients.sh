#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The programs that speak to a server in tests/clients: openai for Python and for Node, and
# LangChain, into FOLDER (build/clients), at the versions below. Safe to repeat.
#
#   scripts/get-clients.sh [FOLDER]
set -eu
folder=${1-$(dirname "$0")/../build/clients}
python_packages="openai==3.54.0 langchain-openai==1.7.3"
node_packages="openai@6.49.0"
mark="$python_packages $node_packages"

[ "$(cat "$folder/made-of" 2>/dev/null || true)" = "$mark" ] && exit 0
echo "Fetching $mark into $folder"
rm -rf "$folder"
mkdir -p "$folder"
python3 -m venv "$folder/python"
"$folder/python/bin/pip" install --quiet --disable-pip-version-check $python_packages
(cd "$folder" && npm install --no-fund --no-audit --silent --prefix . $node_packages)
echo "$mark" >"$folder/made-of"
