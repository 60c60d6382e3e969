/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder for one data file, the toy model's tokenizer, and a template.
 */
#ifndef ARTEL_TESTS_CORPUS_FIXTURE_H
#define ARTEL_TESTS_CORPUS_FIXTURE_H

#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "data/corpus.h"
#include "text/chat.h"
#include "text/tokenizer.h"

static const char chatml[] = "{% for m in messages %}{{ '<|im_start|>' + m.role + "
                             "'\\n' + m.content + '<|im_end|>\\n' }}"
                             "{% endfor %}{% if add_generation_prompt %}{{ "
                             "'<|im_start|>assistant\\n' }}{% endif %}";

struct fixture {
    struct tokenizer *tok;
    struct chat_template *chat;
    char folder[64], path[96];
};

static struct fixture f;

static int set_up(void **state)
{
    struct artel_error err = {0};

    (void)state;
    snprintf(f.folder, sizeof(f.folder), "/tmp/corpus-XXXXXX");
    assert_non_null(mkdtemp(f.folder));
    snprintf(f.path, sizeof(f.path), "%s/d.jsonl", f.folder);
    if (tokenizer_from_folder(&f.tok, ARTEL_TESTS "/golden/toy-tied", &err) < 0)
        fail_msg("%s", err.reason);
    assert_int_equal(chat_parse(&f.chat, chatml, strlen(chatml), "chatml", &err), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tokenizer_close(f.tok);
    chat_close(f.chat);
    unlink(f.path);
    rmdir(f.folder);
    return 0;
}

static void put_bytes(const char *text, size_t n)
{
    FILE *file = fopen(f.path, "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, n, file), n);
    fclose(file);
}

static inline struct corpus *open_with(const char *text,
                                       const struct chat_template *chat,
                                       const struct corpus_options *o)
{
    struct corpus *c;
    struct artel_error err = {0};

    put_bytes(text, strlen(text));
    if (corpus_open(&c, f.path, f.tok, chat, o, &err) < 0)
        fail_msg("%s: %s [%s]", err.where, err.reason, err.code);
    return c;
}

static inline struct corpus *open_text(const char *text)
{
    const struct corpus_options o = {.keep_text = true};

    return open_with(text, f.chat, &o);
}

#endif
