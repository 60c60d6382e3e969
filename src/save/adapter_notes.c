/* SPDX-License-Identifier: Apache-2.0 */
/*
 * artel.json beside an adapter: what the adapter was made from.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "files/digest.h"
#include "files/json.h"
#include "files/write.h"
#include "save/adapter.h"
#include "save/adapter_parts.h"
#include "save/beneath.h"

#define NOTES_MAX_BYTES ((size_t)4 << 20)

static int check_notes(const json_t *root, struct artel_error *err)
{
    static const char *const texts[] = {
        "domain",      "base_path",   "base_digest",    "tokenizer_digest",
        "chat_digest", "data_digest", "weights_digest", "universal_digest"};
    uint64_t version = 0;
    int rc = json_want_uint(root, "format_version", 1, UINT32_MAX, &version, err);

    if (rc < 0)
        return rc;
    if (version < 1 || version > SAVE_FORMAT_VERSION)
        return error_set(err, ARTEL_EFORMAT, "ADP20", "format_version",
                         "version %llu, this program reads 1 to %d",
                         (unsigned long long)version, SAVE_FORMAT_VERSION);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        const char *text;

        rc = json_want_string(root, texts[i], &text, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int adapter_notes_read(json_t **out, const char *folder, struct artel_error *err)
{
    char *path = path_join(folder, ADAPTER_NOTES);
    struct stat st;
    int rc;

    *out = NULL;
    if (!path)
        return error_nomem(err, strlen(folder));
    if (lstat(path, &st) < 0) {
        free(path);
        return 0;
    }
    rc = path_beneath(folder, path, "ADP19", err);
    if (rc == 0)
        rc = json_read_file(out, path, NOTES_MAX_BYTES, err);
    if (rc == 0)
        rc = check_notes(*out, err);
    if (rc < 0) {
        json_decref(*out);
        *out = NULL;
        error_in(err, rc, path);
    }
    free(path);
    return rc < 0 ? rc : 1;
}

int adapter_check_universal(const char *folder, const char *universal,
                            struct artel_error *err)
{
    char *weights = path_join(universal, ADAPTER_WEIGHTS);
    char digest[DIGEST_SIZE];
    const char *theirs;
    json_t *notes = NULL;
    int rc = weights ? digest_file(digest, weights, err) : error_nomem(err, 256);

    if (rc == 0)
        rc = adapter_notes_read(&notes, folder, err);
    theirs = json_string_value(json_object_get(notes, "universal_digest"));
    if (rc >= 0 && theirs && strcmp(theirs, digest) != 0) {
        rc = error_set(err, ARTEL_EFORMAT, "MIX14", "universal_digest",
                       "made for another universal expert: %.64s, here %s; train it "
                       "anew beside this one",
                       theirs, digest);
        error_in(err, rc, folder);
    }
    json_decref(notes);
    free(weights);
    return rc < 0 ? rc : 0;
}
