/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A data file from anywhere. What opens must keep its own promises: sizes that add
 * up, ids that are tokens, a prompt and a pool inside the row.
 */
#define _GNU_SOURCE /* memfd_create */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "artel.h"
#include "data/corpus.h"
#include "files/gguf.h"
#include "support/tiny_model.h"
#include "text/chat.h"
#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct tokenizer *tok;
static struct chat_template *chat;

static void set_up(void)
{
    static const char source[] =
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content|string "
        "+ "
        "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|im_start|>assistant\\n' }}{% endif %}";
    struct tiny_model model;
    struct tiny_gguf file;
    struct tiny_bytes bytes = {0};
    struct artel_error err;
    struct gguf *g;

    tiny_model_default(&model);
    tiny_model_gguf(&model, &file);
    tiny_gguf_pack(&file, &bytes);
    if (gguf_parse(&g, bytes.data, bytes.size, "tiny", &err) < 0 ||
        tokenizer_from_gguf(&tok, g, &err) < 0 ||
        chat_parse(&chat, source, sizeof(source) - 1, "chatml", &err) < 0) {
        fprintf(stderr, "set-up: %s: %s\n", err.where, err.reason);
        abort();
    }
    gguf_close(g);
    tiny_gguf_release(&file);
    tiny_bytes_release(&bytes);
}

static void check(const struct corpus *c)
{
    size_t tokens = 0, loss = 0;

    for (size_t i = 0; i < corpus_count(c); i++) {
        const struct example *e = corpus_at(c, i);
        size_t n_loss = 0;

        for (size_t k = 0; k < e->n; k++) {
            n_loss += e->loss[k];
            if (e->ids[k] < 0 || (size_t)e->ids[k] >= tokenizer_size(tok))
                abort();
        }
        if (!e->n || e->loss[0] || n_loss != e->n_loss || e->n_prompt > e->n ||
            !e->pool_n || e->pool_n > e->n || e->pool_first > e->n - e->pool_n)
            abort();
        tokens += e->n;
        loss += n_loss;
    }
    if (tokens != corpus_stats(c)->n_tokens || loss != corpus_stats(c)->n_answer_tokens)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const int fd = memfd_create("dataset", 0);
    char path[64];

    if (!tok)
        set_up();
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    for (unsigned kind = 0; kind < 8; kind++) {
        const struct corpus_options o = {.cutoff_len = kind & 1 ? 40 : 0,
                                         .skip_bad = kind & 1 ? 3 : 0,
                                         .keep_text = (kind & 2) != 0,
                                         .prompts_only = (kind & 2) != 0};
        struct artel_error err;
        struct corpus *c;

        if (corpus_open(&c, path, tok, kind & 4 ? NULL : chat, &o, &err) < 0)
            continue;
        check(c);
        corpus_close(c);
    }
    close(fd);
    return 0;
}
