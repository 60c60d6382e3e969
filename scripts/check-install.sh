#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Install a build into a scratch prefix and use it from there as a stranger would:
# run the program, compile a caller against either library, look at what is exported.
#
#   scripts/check-install.sh BUILD
set -eu
build=$(cd "$1" && pwd)
source=$(cd "$(dirname "$0")/.." && pwd)
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT

cmake --install "$build" --prefix "$prefix" >"$prefix/install.log"
export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"
"$prefix/bin/artel" --version

cat >"$prefix/caller.c" <<'END'
#include <artel.h>
#include <stdio.h>

/* A name that the library uses inside: it must not reach us. */
int map_open(void);
int map_open(void)
{
    return 7;
}

int main(void)
{
    struct artel_model *model = NULL;
    struct artel_error err = {0};
    const int rc = artel_model_open(&model, "no-such-file.gguf", &err);

    printf("%d [%s] %s\n", rc, err.code, err.reason);
    artel_model_close(model);
    return rc == ARTEL_EIO && !model && map_open() == 7 ? 0 : 1;
}
END
flags="-std=c11 -Wall -Wextra -Wpedantic -Werror $(pkg-config --cflags artel)"
# shellcheck disable=SC2046,SC2086
cc $flags "$prefix/caller.c" -o "$prefix/shared" $(pkg-config --libs artel)
LD_LIBRARY_PATH="$prefix/lib" "$prefix/shared"
# shellcheck disable=SC2046,SC2086
cc $flags "$prefix/caller.c" -o "$prefix/static" "$prefix/lib/libartel.a" \
    $(pkg-config --static --libs artel | sed 's/-lartel//')
"$prefix/static"

for example in "$source"/examples/*.c; do
    # shellcheck disable=SC2046,SC2086
    cc $flags "$example" -o "$prefix/example" $(pkg-config --libs artel)
done

sh "$source/tests/style/exports.sh" "$prefix/lib/libartel.so" "$prefix/lib/libartel.a"
echo "install: program, header, pkg-config and both libraries work from another prefix"
