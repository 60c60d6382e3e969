/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A dataset as training sees it: how many rows stay and why others go, and for the
 * first rows which text carries loss.
 */
#include "plan/api_inspect.h"

#include <string.h>

#include "base/error.h"
#include "data/corpus.h"
#include "data/sniff.h"
#include "decoder/frozen.h"
#include "eval/stream.h"
#include "files/digest.h"
#include "files/lines.h"
#include "text/tokenizer.h"

static json_t *whole(size_t n)
{
    return json_integer((json_int_t)n);
}

/* Tokens FROM .. TO - 1 as text. */
static int add_part(json_t *parts, const struct tokenizer *tok, const struct example *e,
                    size_t from, size_t to, struct artel_error *err)
{
    struct stream s;
    int rc = 0;

    stream_init(&s, NULL, 0);
    for (size_t i = from; rc == 0 && i < to; i++) {
        size_t n;
        const char *const piece = tokenizer_piece(tok, e->ids[i], &n);

        rc = stream_add(&s, piece, n, err);
    }
    if (rc == 0)
        rc = stream_finish(&s, err);
    if (rc == 0)
        json_array_append_new(parts, json_pack("{s:s%, s:b, s:o}", "text", s.text, s.n,
                                               "loss", e->loss[from] != 0, "tokens",
                                               whole(to - from)));
    stream_release(&s);
    return rc;
}

static int preview_row(json_t *rows, const struct tokenizer *tok,
                       const struct example *e, struct artel_error *err)
{
    json_t *const parts = json_array();
    int rc = 0;

    for (size_t from = 0, to; rc == 0 && from < e->n; from = to) {
        for (to = from + 1; to < e->n && !e->loss[to] == !e->loss[from];)
            to++;
        rc = add_part(parts, tok, e, from, to, err);
    }
    json_array_append_new(rows, json_pack("{s:o, s:o, s:o, s:o}", "line", whole(e->row),
                                          "tokens", whole(e->n), "loss_tokens",
                                          whole(e->n_loss), "parts", parts));
    return rc;
}

static int with_model(json_t *root, const char *path,
                      const struct artel_inspect_options *o, struct artel_error *err)
{
    const struct corpus_options co = {.cutoff_len = o->cutoff_len,
                                      .skip_bad = o->skip_bad};
    const struct corpus_stats *s;
    struct artel_model *m = NULL;
    struct corpus *c = NULL;
    json_t *const rows = json_array();
    int rc = model_open(&m, o->model, err);

    if (rc == 0)
        rc = corpus_open(&c, path, m->tokenizer, m->chat, &co, err);
    if (rc < 0) {
        error_in(err, rc, path);
        goto done;
    }
    s = corpus_stats(c);
    json_object_set_new(root, "format", json_string(s->format));
    json_object_set_new(root, "rows", whole(s->rows));
    json_object_set_new(root, "kept", whole(s->kept));
    json_object_set_new(root, "tokens", whole(s->n_tokens));
    json_object_set_new(root, "answer_tokens", whole(s->n_answer_tokens));
    json_object_set_new(root, "dropped",
                        json_pack("{s:o, s:o, s:o}", "too_long",
                                  whole(s->dropped_too_long), "empty_answer",
                                  whole(s->dropped_empty), "malformed",
                                  whole(s->skipped_bad)));
    json_object_set_new(root, "truncated", whole(s->truncated));
    json_object_set_new(root, "rows_spelling_control_tokens",
                        whole(s->special_text_rows));
    json_object_set_new(root, "digest", json_string(s->digest));
    for (size_t i = 0; rc == 0 && i < o->preview && i < corpus_count(c); i++)
        rc = preview_row(rows, m->tokenizer, corpus_at(c, i), err);
    if (o->preview)
        json_object_set(root, "preview", rows);

done:
    json_decref(rows);
    corpus_close(c);
    model_close(m);
    return rc;
}

int inspect_dataset(json_t *root, const char *path,
                    const struct artel_inspect_options *o, struct artel_error *err)
{
    char digest[DIGEST_SIZE];
    struct lines lines = {0};
    enum file_kind kind;
    const char *text;
    size_t n, n_lines = 0;
    int rc;

    json_object_set_new(root, "kind", json_string("dataset"));
    if (o->model)
        return with_model(root, path, o, err);
    rc = lines_open(&lines, path, err);
    if (rc == 0)
        rc = sniff(&kind, path, (const char *)lines.map.data, lines.map.size, err);
    while (rc == 0) {
        rc = lines_next(&lines, &text, &n, err);
        if (rc <= 0)
            break;
        rc = 0;
        n_lines += n > 0;
    }
    json_object_set_new(root, "file_bytes", whole(lines.map.size));
    lines_release(&lines);
    if (rc == 0)
        rc = digest_file(digest, path, err);
    if (rc < 0)
        return error_in(err, rc, path);
    json_object_set_new(root, "lines", whole(n_lines));
    json_object_set_new(root, "digest", json_string(digest));
    json_object_set_new(
        root, "note",
        json_string("name a model with --model for format, tokens and a "
                    "preview"));
    return 0;
}
