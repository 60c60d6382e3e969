#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# From a fresh Debian or Ubuntu to a mixture of experts that answers: installs what the
# build needs (says what, asks sudo where not root), builds, gets a model of 98 MB,
# makes data for five small skills, trains one expert each and the mixture, and
# prints how the base, one LoRA for all and the mixture do. 15 minutes at most on two
# cores, downloads aside. Stopped or killed, it continues where it was.
set -eu
cd "$(dirname "$0")"
started=$(date +%s)

say() {
    printf '\n== %s (%d s)\n' "$*" "$(($(date +%s) - started))"
}

scripts/install-packages.sh
say "building"
mkdir -p build
[ -f build/build.ninja ] || cmake --preset release >build/configure.log || {
    cat build/configure.log
    exit 1
}
cmake --build build --target artel skills
say "getting the model"
scripts/get-model.sh
say "making data for five skills: questions to SQL, commands to tool calls, log lines to fields, dates to ISO, messages to forms"
mkdir -p runs
build/skills runs/skills
say "training an expert a skill, one LoRA for all, and the mixture"
build/artel train examples/skills/recipe.yaml
say "measuring on questions made of other words than training"
build/artel eval runs/demo --max-tokens 64 --markdown runs/demo/table.md --json runs/demo/table.json

say "done"
cat <<'END'
base: the model alone; mixed: one LoRA trained on all five; moa: an expert a skill and
a router a layer that picks one for each question. Every answer must be exact.
The table is in runs/demo/table.md. Talk to the mixture; /why shows how it routed:

    build/artel chat runs/demo/moa

Ask it one thing, or keep it from routing:

    build/artel run runs/demo/moa --prompt 'Date: the third of May in 1999'
    build/artel run runs/demo/moa --expert base --prompt 'Date: the third of May in 1999'

Serve it to a browser and to programs that speak OpenAI's API (docs/SERVING.md):

    build/artel serve runs/demo/moa
END
