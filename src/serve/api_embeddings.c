/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /v1/embeddings: the mean over a text's tokens of the last layer's normed output,
 * under the expert that answers, of length 1.
 */
#include "serve/api_answer.h"
#include "serve/api_parts.h"
#include "serve/api_reply.h"

static void flow(struct choice *c)
{
    (void)c; /* no stream is asked for */
}

static json_t *reply(struct answer *a)
{
    json_t *const data = json_array();
    size_t tokens = 0;
    json_t *o;

    for (size_t i = 0; i < a->n_choices; i++) {
        struct choice *const c = &a->choices[i];

        json_array_append_new(data,
                              json_pack("{s:s, s:I, s:O?, s:O?}", "object", "embedding",
                                        "index", (json_int_t)i, "embedding",
                                        c->embedding, "artel", c->artel));
        tokens += c->usage.prompt_tokens;
    }
    o = json_pack("{s:s, s:o, s:s, s:{s:I, s:I}}", "object", "list", "data", data,
                  "model", a->r.model, "usage", "prompt_tokens", (json_int_t)tokens,
                  "total_tokens", (json_int_t)tokens);
    return o;
}

static int encode(struct answer *a, struct artel_error *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < a->r.n_prompts; i++)
        rc = encode_prompt(a, i, err);
    return rc;
}

static const struct answer_kind embeddings = {.id_prefix = "embd-",
                                              .prompt_field = "input",
                                              .read = request_embedding,
                                              .encode = encode,
                                              .flow = flow,
                                              .reply = reply};

void api_embeddings(void *user, struct exchange *x)
{
    struct answer *const a = answer_read(user, x, &embeddings);
    struct job_options o;

    if (!a)
        return;
    answer_options(a, &o);
    o.embed = true;
    o.max_tokens = 0;
    answer_submit(a, &o, NULL);
}
