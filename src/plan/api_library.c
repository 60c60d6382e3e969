/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The library as a whole: version, threads, notes, errors as text; and a bare
 * model's description and tokens.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/log.h"
#include "decoder/frozen.h"
#include "text/tokenizer.h"

const char *artel_version(void)
{
    return ARTEL_VERSION;
}

int artel_set_threads(size_t n, struct artel_error *err)
{
    const int rc = cpu_check(err);

    return rc < 0 ? rc : cpu_set_threads(n, err);
}

void artel_set_log_level(int level)
{
    log_set_level(level <= 0 ? LOG_QUIET : level == 1 ? LOG_WARN : LOG_INFO);
}

char *artel_error_text(char *out, size_t size, const struct artel_error *err)
{
    snprintf(out, size, "%s%s%s%s%s [%s]", err->file, err->file[0] ? ": " : "",
             err->where, err->where[0] ? ": " : "", err->reason, err->code);
    return out;
}

const char *artel_escape(char *out, size_t size, const char *text, size_t n)
{
    return escape_text(out, size, text, n);
}

void artel_free(void *p)
{
    free(p);
}

int artel_model_open(struct artel_model **out, const char *path,
                     struct artel_error *err)
{
    return model_open(out, path, err);
}

void artel_model_close(struct artel_model *m)
{
    model_close(m);
}

void artel_model_info(const struct artel_model *m, struct artel_model_info *out)
{
    const struct model_config *const c = &m->weights->config;

    *out = (struct artel_model_info){.architecture = c->architecture,
                                     .digest = m->base_digest,
                                     .n_layers = c->n_layers,
                                     .dim = c->dim,
                                     .n_vocab = c->n_vocab,
                                     .context = c->context,
                                     .n_parameters = m->weights->n_parameters,
                                     .file_bytes = m->weights->file_bytes,
                                     .has_chat_template = m->chat != NULL};
}

int artel_tokenize(const struct artel_model *m, int32_t **ids, size_t *n_ids,
                   const char *text, size_t n, int special, struct artel_error *err)
{
    struct ids list = {0};
    const int rc = tokenizer_encode(m->tokenizer, &list, text, n, special != 0, err);

    *ids = NULL;
    *n_ids = 0;
    if (rc < 0) {
        ids_release(&list);
        return rc;
    }
    *ids = list.at;
    *n_ids = list.n;
    return 0;
}

int artel_detokenize(const struct artel_model *m, char **text, size_t *n,
                     const int32_t *ids, size_t n_ids, struct artel_error *err)
{
    FILE *f;

    *text = NULL;
    *n = 0;
    for (size_t i = 0; i < n_ids; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= tokenizer_size(m->tokenizer))
            return error_set(err, ARTEL_EUSAGE, "TOK90", NULL,
                             "id %ld is not among the %zu tokens", (long)ids[i],
                             tokenizer_size(m->tokenizer));
    f = open_memstream(text, n);
    if (!f)
        return error_nomem(err, n_ids);
    for (size_t i = 0; i < n_ids; i++) {
        size_t length;
        const char *const piece = tokenizer_piece(m->tokenizer, ids[i], &length);

        fwrite(piece, 1, length, f);
    }
    if (fclose(f)) {
        free(*text);
        *text = NULL;
        return error_nomem(err, *n);
    }
    return 0;
}
