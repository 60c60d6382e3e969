#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A folder of src/ may include only itself, the folders before it and artel.h; the
# program in src/cli/ only artel.h and its own files, those of bench excepted. File
# names are unique, so that an include can mean one file only.
#
#   tests/style/includes.sh ROOT
cd "$1" || exit 2
order="base files model text data math tiles experts decoder train save eval plan serve cli"

find src include -name '*.[ch]' | sort | xargs awk -v order="$order" '
BEGIN {
    n = split(order, name, " ")
    for (i = 1; i <= n; i++)
        place[name[i]] = i
}
function wrong(why) {
    print FILENAME ":" FNR ": " why
    bad = 1
}
FNR == 1 {
    depth = split(FILENAME, part, "/")
    folder = depth > 2 ? part[2] : "include"
    own = folder == "include" ? 0 : place[folder]
    if (folder != "include" && !own)
        wrong("src/" folder " is no folder of the design: " order)
    if (seen[part[depth]]++)
        wrong("a second file of this name")
}
/^#[ \t]*include[ \t]*"/ {
    split($0, quoted, "\"")
    if (quoted[2] == "artel.h")
        next
    if (split(quoted[2], piece, "/") != 2 || !place[piece[1]]) {
        wrong("\"" quoted[2] "\" does not name a folder of src/")
        next
    }
    if (folder == "include")
        wrong("the public header includes \"" quoted[2] "\"")
    else if (folder == "cli" && piece[1] != "cli" && FILENAME !~ /\/(cmd_)?bench/)
        wrong("the program uses artel.h only, not \"" quoted[2] "\"")
    else if (place[piece[1]] > own)
        wrong(folder "/ comes before " piece[1] "/ and may not include \"" quoted[2] "\"")
}
END { exit bad }'
