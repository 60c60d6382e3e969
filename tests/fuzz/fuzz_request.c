/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as the body of a request of each kind. What is refused is the client's fault and
 * names its cause; what is accepted keeps to its bounds.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "artel.h"
#include "serve/api_reply.h"
#include "serve/api_request.h"

#define N_VOCAB 300

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int rc, const struct artel_error *err, struct request *r)
{
    if (rc < 0) {
        if ((rc != ARTEL_EUSAGE && rc != ARTEL_EFORMAT) || err->exit != -rc ||
            !*err->code || !*err->where)
            abort();
        return;
    }
    if (r->n < 1 || r->n > 16 || r->temperature > 2 || r->top_p > 1 ||
        r->top_logprobs > 20 || r->n_stop > 16 || !r->model || strchr(r->ignored, '\n'))
        abort();
    for (size_t i = 0; i < r->n_bias; i++)
        if (r->bias[i].id < 0 || r->bias[i].id >= N_VOCAB)
            abort();
    for (size_t i = 0; i < r->n_prompts; i++)
        for (size_t k = 0; !r->prompts[i].text && k < r->prompts[i].n; k++)
            if (r->prompts[i].ids[k] < 0 || r->prompts[i].ids[k] >= N_VOCAB)
                abort();
    if (r->tools) {
        json_t *const schema = tool_schema(r->tools, r->tool_name);
        char *const text = json_dumps(r->messages, 0);

        json_decref(tool_calls_of(text, strlen(text), r->tools, "x", 0));
        json_decref(schema);
        free(text);
    }
    request_release(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct request_limits limits = {.n_vocab = N_VOCAB,
                                          .max_choices = 16,
                                          .strict = size && data[size - 1] == '\n'};
    const char *const body = (const char *)data;
    struct artel_error err = {0};
    struct request r;

    check(request_chat(&r, &limits, body, size, &err), &err, &r);
    check(request_completion(&r, &limits, body, size, &err), &err, &r);
    check(request_embedding(&r, &limits, body, size, &err), &err, &r);
    return 0;
}
