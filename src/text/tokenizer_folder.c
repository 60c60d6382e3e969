/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tokenizer from a Hugging Face folder. tokenizer.json has the tokens; the other
 * files say which of them begin and end a text, and must agree with it:
 *
 *     tokenizer_config.json    bos_token, eos_token, add_bos_token, added_tokens_decoder
 *     special_tokens_map.json  bos_token, eos_token
 *     generation_config.json   eos_token_id, one or a list
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "files/json.h"
#include "files/write.h"
#include "text/tokenizer_parts.h"

#define QUOTED         192
#define MAX_FILE_BYTES ((size_t)256 << 20)

static const char *quote(char out[QUOTED], const char *text)
{
    return escape_text(out, QUOTED, text, strlen(text));
}

/* Both spellings of a special token: "text" and {"content": "text"}. NULL: none. */
static const char *token_text(const struct json_source *source, const char *key)
{
    const json_t *value = json_object_get(source->root, key);

    return json_string_value(json_is_object(value) ? json_object_get(value, "content")
                                                   : value);
}

/* The id that KEY names into *ID, which keeps its value where no file does. */
static int named_id(int32_t *id, const struct tokenizer *t,
                    const struct tokenizer_files *f, const char *key,
                    struct artel_error *err)
{
    const char *config = token_text(&f->config, key);
    const char *map = token_text(&f->special_map, key);
    const char *text = config ? config : map;
    char quoted[QUOTED], other[QUOTED];
    int rc = 0;

    if (!text)
        return 0;
    if (config && map && strcmp(config, map)) {
        rc = error_set(err, ARTEL_EFORMAT, "TOK12", key,
                       "'%s' here, but '%s' in tokenizer_config.json",
                       quote(other, map), quote(quoted, config));
        return error_in(err, rc, f->special_map.path);
    }
    *id = tokenizer_find(t, text);
    if (*id < 0) {
        rc = error_set(err, ARTEL_EFORMAT, "TOK12", key,
                       "'%s' is not a token of tokenizer.json", quote(quoted, text));
        return error_in(err, rc, config ? f->config.path : f->special_map.path);
    }
    return 0;
}

/* The tokens that tokenizer_config.json lists by id must be those of tokenizer.json. */
static int check_decoder(const struct tokenizer *t, const struct json_source *config,
                         struct artel_error *err)
{
    json_t *listed = json_object_get(config->root, "added_tokens_decoder"), *value;
    const char *key;

    json_object_foreach(listed, key, value)
    {
        const char *text = json_string_value(json_object_get(value, "content"));
        char *end = NULL, quoted[QUOTED], shown[QUOTED];
        long long id;
        int32_t found;

        errno = 0;
        id = strtoll(key, &end, 10);
        if (!*key || *end || errno || !text)
            return error_set(err, ARTEL_EFORMAT, "TOK15", "added_tokens_decoder",
                             "'%s' is not an id with a content", quote(quoted, key));
        found = tokenizer_find(t, text);
        if (found >= 0 && found == id)
            continue;
        if (found < 0)
            return error_set(err, ARTEL_EFORMAT, "TOK12", "added_tokens_decoder",
                             "'%s' is %s here, but no token of tokenizer.json",
                             quote(quoted, text), quote(shown, key));
        return error_set(err, ARTEL_EFORMAT, "TOK12", "added_tokens_decoder",
                         "'%s' is %s here, but %d in tokenizer.json",
                         quote(quoted, text), quote(shown, key), found);
    }
    return 0;
}

/* The token that the post-processor's template begins with. */
static int check_template(const struct tokenizer *t, const char *name, int32_t named,
                          struct artel_error *err)
{
    const int32_t found = tokenizer_find(t, name);
    char quoted[QUOTED];

    if (found < 0 || found != t->bos)
        return error_set(err, ARTEL_EFORMAT, "TOK11", "post_processor",
                         "the template's '%s' has id %d, but is token %d",
                         quote(quoted, name), t->bos, found);
    if (named >= 0 && named != found)
        return error_set(err, ARTEL_EFORMAT, "TOK12", "post_processor",
                         "texts begin with token %d, but bos_token is %d", found,
                         named);
    return 0;
}

static int read_generation(struct tokenizer *t, const struct json_source *generation,
                           struct artel_error *err)
{
    const json_t *ends = json_object_get(generation->root, "eos_token_id");
    const size_t n = json_is_array(ends) ? json_array_size(ends) : 1;

    if (!ends || json_is_null(ends))
        return 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(ends) ? json_array_get(ends, i) : ends;
        int rc;

        if (!json_is_integer(id))
            return error_set(err, ARTEL_EFORMAT, "TOK04", "eos_token_id",
                             "is neither an id nor a list of ids");
        rc = tokenizer_check_id(t, "eos_token_id", json_integer_value(id), err);
        if (rc < 0)
            return rc;
        t->ends[json_integer_value(id)] = true;
        if (t->eos < 0)
            t->eos = (int32_t)json_integer_value(id);
    }
    return 0;
}

int read_special_names(struct tokenizer *t, const struct tokenizer_files *f,
                       const char *bos_name, struct artel_error *err)
{
    int32_t bos = -1;
    int rc;

    rc = named_id(&bos, t, f, "bos_token", err);
    if (rc == 0)
        rc = named_id(&t->eos, t, f, "eos_token", err);
    if (rc < 0)
        return rc;
    if (t->eos >= 0)
        t->ends[t->eos] = true;
    if (bos_name)
        rc = check_template(t, bos_name, bos, err);
    if (rc < 0)
        return error_in(err, rc, f->tokenizer.path);
    if (bos >= 0)
        t->bos = bos;
    rc = check_decoder(t, &f->config, err);
    if (rc == 0)
        rc = json_want_bool(f->config.root, "add_bos_token", &t->adds_bos, err);
    if (rc == 0 && t->adds_bos && t->bos < 0)
        rc = error_set(err, ARTEL_EFORMAT, "TOK04", "add_bos_token",
                       "is true, but there is no bos_token");
    if (rc < 0)
        return error_in(err, rc, f->config.path);
    rc = read_generation(t, &f->generation, err);
    return rc < 0 ? error_in(err, rc, f->generation.path) : 0;
}

int tokenizer_from_files(struct tokenizer **out, const struct tokenizer_files *f,
                         struct artel_error *err)
{
    struct tokenizer *t = calloc(1, sizeof(*t));
    const char *bos_name = NULL;
    int rc;

    *out = NULL;
    if (!t)
        return error_nomem(err, sizeof(*t));
    t->bos = t->eos = -1;
    rc = read_pipeline(t, f->tokenizer.root, &bos_name, err);
    if (rc == 0)
        rc = read_model(t, f->tokenizer.root, err);
    if (rc == 0)
        rc = tokenizer_complete(t, err);
    if (rc < 0)
        error_in(err, rc, f->tokenizer.path);
    else
        rc = read_special_names(t, f, bos_name, err);
    if (rc < 0) {
        tokenizer_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

/* One of the folder's files; OWNED is the tree and PATH its name, NULL and set when
 * there is no such file. */
static int read_source(struct json_source *source, json_t **owned, char **path,
                       const char *folder, const char *name, struct artel_error *err)
{
    int rc = 0;

    *owned = NULL;
    *path = path_join(folder, name);
    if (!*path)
        return error_nomem(err, strlen(folder));
    if (access(*path, F_OK) == 0)
        rc = json_read_file(owned, *path, MAX_FILE_BYTES, err);
    *source = (struct json_source){*owned, *path};
    return rc;
}

int tokenizer_from_folder(struct tokenizer **out, const char *folder,
                          struct artel_error *err)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "generation_config.json"};
    struct tokenizer_files f = {0};
    struct json_source *const sources[] = {&f.tokenizer, &f.config, &f.special_map,
                                           &f.generation};
    json_t *owned[4] = {0};
    char *paths[4] = {0};
    int rc = 0;

    *out = NULL;
    for (size_t i = 0; i < 4 && rc == 0; i++)
        rc = read_source(sources[i], &owned[i], &paths[i], folder, names[i], err);
    if (rc == 0 && !f.tokenizer.root) {
        rc = error_set(err, ARTEL_EFORMAT, "TOK01", NULL,
                       "there is no such file; a tokenizer is read from it only");
        error_in(err, rc, f.tokenizer.path);
    }
    if (rc == 0)
        rc = tokenizer_from_files(out, &f, err);
    for (size_t i = 0; i < 4; i++) {
        json_decref(owned[i]);
        free(paths[i]);
    }
    return rc;
}
