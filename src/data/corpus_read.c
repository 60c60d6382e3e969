/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a file's bytes to examples. Rows are read one after another and forgotten:
 * beside the ids only one row's JSON is in memory.
 *
 *     DATA04 no examples   DATA07 no chat template   DATA08 every row dropped
 *     DATA09 ids           DATA11 more bad rows than may be skipped
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "data/corpus_parts.h"
#include "data/forged.h"
#include "data/sniff.h"
#include "files/digest.h"
#include "files/json.h"
#include "files/json_scan.h"
#include "files/lines.h"
#include "text/chat.h"

#define TEXT_CHUNK 512 /* tokens of a chunk of plain text, where no cutoff is given */

struct reader {
    struct corpus *c;
    const char *path;
    const struct tokenizer *tok;
    const struct chat_template *chat;
    const struct corpus_options *o;
    enum row_kind kind;
    struct turns turns;
    struct forged forged;
};

/* An error of a row gets the row's place; one about memory keeps its own. */
static int at_line(struct artel_error *err, int rc, size_t line)
{
    if (rc == ARTEL_EFORMAT && err && !err->where[0])
        snprintf(err->where, sizeof(err->where), "%zu:1", line);
    return rc;
}

/* Prompt and answer joined as they are, with the model's BOS and EOS. */
static int encode_plain(struct reader *r, const struct row *row,
                        struct artel_error *err)
{
    struct turns *t = &r->turns;
    size_t skipped = 0;
    int rc = 0;

    if (!row->prompt)
        return error_set(err, ARTEL_EFORMAT, "DATA07", NULL,
                         "rows of %s need a chat template, and this model has none",
                         row_kind_name(row->kind));
    turns_clear(t);
    if (tokenizer_adds_bos(r->tok) && tokenizer_bos(r->tok) >= 0) {
        rc = turns_push(t, tokenizer_bos(r->tok), false, err);
        skipped = 1;
    }
    if (rc == 0)
        rc = turns_add(t, r->tok, row->prompt, NULL, strlen(row->prompt), false, err);
    if (rc == 0 && t->ids.n > skipped)
        rc = turns_open(t, skipped, t->ids.n - skipped, err);
    else if (rc == 0)
        rc = turns_open(t, 0, 1, err);
    if (rc < 0 || !row->answer || !*row->answer)
        return rc;
    rc = turns_add(t, r->tok, row->answer, NULL, strlen(row->answer), true, err);
    if (rc == 0 && tokenizer_eos(r->tok) >= 0)
        rc = turns_push(t, tokenizer_eos(r->tok), true, err);
    return rc;
}

/* The prompt of MESSAGES alone: rows that carry no answer. */
static int encode_prompt(struct reader *r, const json_t *messages, const json_t *tools,
                         struct artel_error *err)
{
    struct turns *t = &r->turns;
    struct rendered text;
    size_t first, n;
    int rc = turns_render(&text, r->tok, r->chat, messages, tools, NULL, true, err);

    if (rc < 0)
        return rc;
    turns_clear(t);
    rc = turns_add(t, r->tok, text.text, text.mask, text.n, false, err);
    if (rc == 0) {
        turns_pool(t, text.pool_first, text.pool_end, &first, &n);
        rc = turns_open(t, first, n, err);
    }
    rendered_release(&text);
    return rc;
}

static int encode_text(struct reader *r, const char *text, size_t n,
                       struct artel_error *err)
{
    struct turns *t = &r->turns;
    int rc = 0;

    turns_clear(t);
    if (tokenizer_adds_bos(r->tok) && tokenizer_bos(r->tok) >= 0)
        rc = turns_push(t, tokenizer_bos(r->tok), false, err);
    if (rc == 0)
        rc = turns_add(t, r->tok, text, NULL, n, true, err);
    if (rc == 0 && n && tokenizer_eos(r->tok) >= 0)
        rc = turns_push(t, tokenizer_eos(r->tok), true, err);
    return rc;
}

/* Ids as they are; a label of -100 takes the loss from its token. */
static int encode_ids(struct reader *r, const struct row *row, struct artel_error *err)
{
    const size_t n = json_array_size(row->ids);
    struct turns *t = &r->turns;
    bool before = false;
    int rc = 0;

    turns_clear(t);
    if (row->labels && json_array_size(row->labels) != n)
        return error_set(err, ARTEL_EFORMAT, "DATA09", NULL,
                         "%zu labels for %zu input_ids", json_array_size(row->labels),
                         n);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const json_t *id = json_array_get(row->ids, i);
        const json_t *label = row->labels ? json_array_get(row->labels, i) : id;
        const json_int_t v = json_integer_value(id);
        const bool loss = json_integer_value(label) != -100;

        if (!json_is_integer(id) || v < 0 || (size_t)v >= tokenizer_size(r->tok))
            return error_set(err, ARTEL_EFORMAT, "DATA09", NULL,
                             "input_ids[%zu]: expected an id from 0 to %zu", i,
                             tokenizer_size(r->tok) - 1);
        if (loss && (!json_is_integer(label) || json_integer_value(label) != v))
            return error_set(err, ARTEL_EFORMAT, "DATA09", NULL,
                             "labels[%zu]: expected -100 or the id itself", i);
        if (loss && !before && i > 0)
            rc = turns_open(t, 0, i, err);
        before = loss;
        if (rc == 0)
            rc = turns_push(t, (int32_t)v, loss, err);
    }
    return rc;
}

static int encode_row(struct reader *r, const struct row *row, bool prompt_alone,
                      struct artel_error *err)
{
    if (row->kind == ROW_TEXT)
        return encode_text(r, row->text, row->text_n, err);
    if (row->kind == ROW_IDS)
        return encode_ids(r, row, err);
    if (!r->chat)
        return encode_plain(r, row, err);
    if (prompt_alone)
        return encode_prompt(r, row->messages, row->tools, err);
    return turns_encode(&r->turns, r->tok, r->chat, row->messages, row->tools, err);
}

static const json_t *last_user(const json_t *messages)
{
    for (size_t i = json_array_size(messages); i-- > 0;) {
        const json_t *m = json_array_get(messages, i);
        const char *role = json_string_value(json_object_get(m, "role"));

        if (role && !strcmp(role, "user"))
            return json_object_get(m, "content");
    }
    return NULL;
}

static char *copy_of(const char *text)
{
    return strdup(text ? text : "");
}

static int keep_choices(struct choice_row *out, const json_t *object,
                        const struct row *row, struct artel_error *err)
{
    const json_t *choices = json_object_get(object, "choices");
    const size_t n = json_array_size(choices);
    const char **texts = calloc(n, sizeof(*texts));
    bool whole = texts != NULL;

    out->question = copy_of(row->text);
    out->domain = copy_of(json_string_value(json_object_get(object, "domain")));
    out->answer = (size_t)json_integer_value(json_object_get(object, "answer"));
    out->choices = texts;
    for (size_t i = 0; whole && i < n; i++) {
        texts[i] = copy_of(json_string_value(json_array_get(choices, i)));
        whole = texts[i] != NULL;
    }
    out->n_choices = texts ? n : 0;
    return whole && out->question && out->domain ? 0 : error_nomem(err, 64);
}

static int keep(struct kept_text *k, const json_t *object, const struct row *row,
                bool texts, struct artel_error *err)
{
    const size_t n = json_array_size(row->messages);
    const json_t *user;

    if (row->kind == ROW_CHOICES)
        return keep_choices(&k->choices, object, row, err);
    if (!texts || row->kind == ROW_TEXT || row->kind == ROW_IDS)
        return 0;
    user = last_user(row->messages);
    k->prompt = copy_of(row->prompt ? row->prompt : json_string_value(user));
    k->answer = row->answer ? copy_of(row->answer) : NULL;
    k->messages = row->prompt ? NULL : json_array();
    if (!k->prompt || (row->answer && !k->answer) || (!row->prompt && !k->messages))
        return error_nomem(err, 64);
    for (size_t i = 0; k->messages && i + (row->answer != NULL) < n; i++)
        if (json_array_append(k->messages, json_array_get(row->messages, i)) != 0)
            return error_nomem(err, 64);
    return 0;
}

static bool spells_control(const struct reader *r, const struct row *row)
{
    return forged_in_messages(&r->forged, row->messages) ||
           (row->kind == ROW_TEXT && forged_in(&r->forged, row->text, row->text_n));
}

/* The last answer says nothing and calls nothing. */
static bool is_empty(const struct row *row)
{
    const size_t n = json_array_size(row->messages);
    const json_t *last = n ? json_array_get(row->messages, n - 1) : NULL;

    return row->answer && !row->answer[strspn(row->answer, " \t\r\n")] &&
           !json_array_size(json_object_get(last, "tool_calls"));
}

static int take_object(struct reader *r, const json_t *object, size_t place,
                       struct artel_error *err)
{
    struct corpus *c = r->c;
    struct kept_text text = {0};
    struct row row;
    bool alone;
    int rc = row_read(&row, &r->kind, object, r->o->prompts_only, !r->chat, err);

    if (rc < 0)
        return rc;
    if (is_empty(&row)) {
        c->stats.dropped_empty++;
        row_release(&row);
        return 0;
    }
    alone = row.kind == ROW_CHOICES || (r->o->prompts_only && !row.answer &&
                                        row.kind != ROW_TEXT && row.kind != ROW_IDS);
    rc = encode_row(r, &row, alone, err);
    if (rc == 0)
        rc = keep(&text, object, &row, r->o->keep_text, err);
    if (rc == 0) {
        const bool texts = r->o->keep_text || row.kind == ROW_CHOICES;

        c->stats.special_text_rows += spells_control(r, &row);
        rc = corpus_append(c, &r->turns, r->o->cutoff_len, alone, r->o->domain, place,
                           texts ? &text : NULL, err);
    }
    kept_text_release(&text);
    row_release(&row);
    return rc;
}

/* One row of TEXT; a bad one may be skipped. LINE is its first physical line. */
static int take_row(struct reader *r, const char *text, size_t n, size_t line,
                    size_t place, struct artel_error *err)
{
    struct corpus_stats *s = &r->c->stats;
    struct artel_error local = {0};
    json_t *object = NULL;
    char shown[260];
    int rc;

    s->rows++;
    rc = json_parse(&object, text, n, r->path, line - 1, &local);
    if (rc == 0)
        rc = take_object(r, object, place, &local);
    json_decref(object);
    rc = at_line(&local, rc, line);
    if (rc != ARTEL_EFORMAT || !r->o->skip_bad) {
        if (rc < 0 && err)
            *err = local;
        return rc;
    }
    log_warn("%s:%s: skipped: %s",
             escape_text(shown, sizeof(shown), r->path, strlen(r->path)), local.where,
             local.reason);
    if (++s->skipped_bad > r->o->skip_bad)
        return error_set(err, ARTEL_EFORMAT, "DATA11", local.where,
                         "more than %zu bad rows, the last one: %.150s", r->o->skip_bad,
                         local.reason);
    return 0;
}

static bool is_blank(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r", text[i]) || !text[i])
            return false;
    return true;
}

static bool enough(const struct reader *r)
{
    return r->o->max_rows && r->c->stats.rows >= r->o->max_rows;
}

static int read_lines(struct reader *r, struct lines *l, struct artel_error *err)
{
    const char *text;
    size_t n;
    int rc = 1;

    while (!enough(r)) {
        rc = lines_next(l, &text, &n, err);
        if (rc <= 0)
            return rc;
        if (is_blank(text, n))
            continue;
        rc = take_row(r, text, n, l->number, l->number, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int bad_array(const char *data, size_t at, const char *what,
                     struct artel_error *err)
{
    char where[48];
    size_t line, column;

    text_position(data, at, &line, &column);
    snprintf(where, sizeof(where), "%zu:%zu", line, column);
    return error_set(err, ARTEL_EFORMAT, "JSON01", where, "%s", what);
}

/* Elements of one array, each parsed alone. */
static int read_array(struct reader *r, const char *data, size_t n,
                      struct artel_error *err)
{
    struct json_scan s;
    size_t counted = 0, line = 1;
    enum json_token t;

    json_scan_init(&s, data, n);
    t = json_scan_next(&s);
    while (t != JSON_TOKEN_BAD && !enough(r)) {
        size_t first;
        int rc;

        t = json_scan_next(&s);
        if (t == JSON_TOKEN_ARRAY_END && !s.depth)
            t = json_scan_next(&s); /* nothing may follow */
        if (t == JSON_TOKEN_BAD || t == JSON_TOKEN_END)
            break;
        first = s.start - (t == JSON_TOKEN_STRING);
        for (; counted < first; counted++)
            line += data[counted] == '\n';
        if (!json_scan_skip(&s, t)) {
            t = JSON_TOKEN_BAD;
            break;
        }
        rc = take_row(r, data + first, s.at - first, line, r->c->stats.rows + 1, err);
        if (rc < 0)
            return rc;
    }
    return t == JSON_TOKEN_BAD ? bad_array(data, s.error_at, s.what, err) : 0;
}

static int check_utf8(const char *data, size_t n, struct artel_error *err)
{
    for (size_t i = 0, len; i < n; i += len) {
        len = utf8_sequence(data + i, n - i);
        if (!len || !data[i])
            return bad_array(data, i, data[i] ? "this is not UTF-8" : "a NUL in a text",
                             err);
    }
    return 0;
}

/* The whole text as tokens, then in chunks; each begins with BOS where the model has it. */
static int read_text(struct reader *r, const char *data, size_t n,
                     struct artel_error *err)
{
    const size_t chunk = r->o->cutoff_len ? r->o->cutoff_len : TEXT_CHUNK;
    const bool bos = tokenizer_adds_bos(r->tok) && tokenizer_bos(r->tok) >= 0;
    struct corpus_stats *s = &r->c->stats;
    struct ids all = {0};
    int rc = check_utf8(data, n, err);

    if (rc == 0)
        rc = tokenizer_encode(r->tok, &all, data, n, false, err);
    s->special_text_rows = rc == 0 && forged_in(&r->forged, data, n);
    for (size_t at = 0; rc == 0 && at < all.n && !enough(r);) {
        turns_clear(&r->turns);
        if (bos && chunk > 1)
            rc = turns_push(&r->turns, tokenizer_bos(r->tok), false, err);
        while (rc == 0 && at < all.n && r->turns.ids.n < chunk)
            rc = turns_push(&r->turns, all.at[at++], true, err);
        s->rows++;
        if (rc == 0)
            rc = corpus_append(r->c, &r->turns, 0, false, r->o->domain, s->rows, NULL,
                               err);
    }
    ids_release(&all);
    return rc;
}

/* Nothing was kept: say why. */
static int check_kept(const struct corpus *c, size_t cutoff, struct artel_error *err)
{
    const struct corpus_stats *s = &c->stats;

    if (c->n)
        return 0;
    if (!s->rows)
        return error_set(err, ARTEL_EFORMAT, "DATA04", NULL,
                         "the file holds no examples");
    return error_set(
        err, ARTEL_EFORMAT, "DATA08", NULL,
        "all %zu rows were dropped: %zu longer than cutoff_len %zu before their "
        "answer, %zu with an empty answer, %zu malformed",
        s->rows, s->dropped_too_long, cutoff, s->dropped_empty, s->skipped_bad);
}

int corpus_read(struct corpus *c, const char *path, const struct tokenizer *tok,
                const struct chat_template *chat, const struct corpus_options *o,
                struct artel_error *err)
{
    struct reader r = {.c = c, .path = path, .tok = tok, .chat = chat, .o = o};
    enum file_kind kind;
    struct lines l;
    const char *data;
    int rc = lines_open(&l, path, err);

    if (rc < 0)
        return rc;
    data = (const char *)l.map.data;
    rc = sniff(&kind, path, data ? data : "", l.map.size, err);
    if (rc == 0)
        rc = forged_init(&r.forged, tok, err);
    if (rc == 0) {
        digest_bytes(c->stats.digest, data, l.map.size);
        if (kind == FILE_JSONL)
            rc = read_lines(&r, &l, err);
        else if (kind == FILE_JSON_ARRAY)
            rc = read_array(&r, data + l.offset, l.map.size - l.offset, err);
        else
            rc = read_text(&r, data + l.offset, l.map.size - l.offset, err);
        c->stats.format = kind == FILE_TEXT ? "plain text" : row_kind_name(r.kind);
    }
    if (rc == 0)
        rc = check_kept(c, o->cutoff_len, err);
    forged_release(&r.forged);
    turns_release(&r.turns);
    lines_release(&l);
    return rc;
}
