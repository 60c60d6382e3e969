/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts for generation: the same steps as the first part of a training row.
 */
#include "data/prompt.h"

#include "data/turns.h"
#include "base/error.h"
#include "text/chat.h"

/* The ids of T become those of P. */
static void hand_over(struct prompt *p, struct turns *t)
{
    const struct ids old = p->ids;

    p->ids = t->ids;
    t->ids = old;
    turns_release(t);
}

int prompt_encode(struct prompt *p, const struct tokenizer *tok,
                  const struct chat_template *chat, const json_t *messages,
                  const json_t *tools, const json_t *extra, struct artel_error *err)
{
    struct turns t = {0};
    struct rendered r;
    int rc = turns_render(&r, tok, chat, messages, tools, extra, true, err);

    if (rc < 0)
        return rc;
    rc = turns_add(&t, tok, r.text, r.mask, r.n, false, err);
    if (rc == 0 && !t.ids.n)
        rc = error_set(err, ARTEL_EFORMAT, "DATA10", NULL,
                       "the chat template makes an empty prompt of this");
    if (rc == 0)
        turns_pool(&t, r.pool_first, r.pool_end, &p->pool_first, &p->pool_n);
    rendered_release(&r);
    hand_over(p, &t);
    return rc;
}

int prompt_encode_raw(struct prompt *p, const struct tokenizer *tok, const char *text,
                      size_t n, struct artel_error *err)
{
    struct turns t = {0};
    int rc = 0;

    if (tokenizer_adds_bos(tok) && tokenizer_bos(tok) >= 0)
        rc = turns_push(&t, tokenizer_bos(tok), false, err);
    if (rc == 0)
        rc = turns_add(&t, tok, text, NULL, n, false, err);
    if (rc == 0 && !t.ids.n)
        rc = error_set(err, ARTEL_EUSAGE, "DATA10", NULL, "the prompt is empty");
    p->pool_first = 0;
    p->pool_n = t.ids.n;
    hand_over(p, &t);
    return rc;
}

void prompt_release(struct prompt *p)
{
    ids_release(&p->ids);
    *p = (struct prompt){0};
}
