/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/talk.h"

#include <string.h>

#include "base/error.h"
#include "decoder/session.h"
#include "experts/mixture.h"

int talk_init(struct talk *t, const struct tokenizer *tok, size_t n_vocab,
              const struct talk_options *o, const struct ids *prompt,
              struct artel_error *err)
{
    int rc;

    *t = (struct talk){.tok = tok, .max_tokens = o->max_tokens, .room = o->room};
    stream_init(&t->stream, o->stop, o->n_stop);
    rc = sampler_init(&t->sampler, &o->sampling, n_vocab, o->stream, err);
    for (size_t i = 0; rc == 0 && i < prompt->n; i++)
        sampler_see(&t->sampler, prompt->at[i]);
    return rc;
}

void talk_release(struct talk *t)
{
    sampler_release(&t->sampler);
    stream_release(&t->stream);
    ids_release(&t->ids);
}

int talk_pick(struct talk *t, int32_t *id, const float *logits, size_t length,
              struct artel_error *err)
{
    const char *piece;
    size_t n;
    int rc;

    *id = sampler_pick(&t->sampler, logits);
    if (*id < 0)
        return error_set(err, ARTEL_ENONFINITE, "NUM01", NULL,
                         "no logit is a number after %zu tokens", length);
    rc = ids_push(&t->ids, *id, err);
    if (rc < 0)
        return rc;
    if (tokenizer_is_end(t->tok, *id)) {
        t->finish_reason = "stop";
        return 0;
    }
    sampler_wrote(&t->sampler, *id);
    if (!tokenizer_is_control(t->tok, *id)) {
        piece = tokenizer_piece(t->tok, *id, &n);
        rc = stream_add(&t->stream, piece, n, err);
        if (rc < 0)
            return rc;
    }
    if (t->stream.stopped)
        t->finish_reason = "stop";
    else if (t->ids.n >= t->max_tokens || length >= t->room)
        t->finish_reason = "length";
    return 0;
}

void route_read(struct route *out, float *room, const struct artel_session *s,
                const struct mixture *mixture)
{
    const size_t E = mixture ? mixture->n_experts : 0;

    *out = (struct route){.expert = session_expert(s)};
    if (!mixture || !mixture->n_routers)
        return;
    if (session_gates(s, room)) {
        out->per_token = true;
        for (size_t r = 0; r < mixture->n_routers; r++)
            if (mixture_router_used(mixture, r))
                memmove(room + out->n_routers++ * E, room + r * E, E * sizeof(*room));
    } else if (session_probs(s, 0)) {
        out->n_routers = mixture->n_routers;
        out->layers_agreeing = session_layers_agreeing(s);
        out->from_base =
            mixture->rule.place == ROUTER_BASE || mixture->rule.place == ROUTER_TEXT;
        for (size_t r = 0; r < mixture->n_routers; r++)
            memcpy(room + r * E, session_probs(s, r), E * sizeof(*room));
    } else {
        return;
    }
    out->routed = true;
    out->n_experts = E;
    out->probabilities = room;
}
