#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Nothing of one machine or of unfinished work in the tree: paths of a home or work
# folder, hosts of package registries, marks that say "later".
#
#   tests/style/leftovers.sh ROOT
cd "$1" || exit 2
bad=0

# looks PATTERN WHY: in every text file that belongs to the project
looks() {
    found=$(grep -rnIE "$1" . --exclude-dir=.git --exclude=.git --exclude-dir='build*' \
        --exclude-dir=models --exclude-dir=runs --exclude-dir=data \
        --exclude-dir=__pycache__ | cut -c 1-160)
    if [ -n "$found" ]; then
        echo "$2:"
        echo "$found"
        bad=1
    fi
}

looks '/(work|farm|root|home)/[a-z]' 'paths of a machine'
looks 'pypi[.]org|pythonhosted[.]|npmjs[.]|proxy[.]golang|pkg[.]dev|debian[.]org/debian' \
    'hosts of registries'
looks '\b(TOD[O]|FIXM[E]|XX[X])\b' 'unfinished work'
exit "$bad"
