/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of single queries. The keys of a sequence are cut into chunks of fixed
 * length, so that a long sequence keeps all threads busy and the sum of its parts
 * is the same for any number of them:
 *
 *     m_c = max of a chunk's scores   e_c = sum exp(s - m_c)   o_c = sum exp(s - m_c) v
 *     o   = sum_c exp(m_c - m) o_c / sum_c exp(m_c - m) e_c
 *
 * Whoever has the last chunk of a group puts the new key and value into the cache.
 */
#include <math.h>
#include <string.h>

#include "decoder/decode_parts.h"
#include "math/kernels.h"

static size_t n_chunks(const struct decode_row *r)
{
    return r->kv->n / CHUNK_KEYS + 1;
}

void attended_carve(struct attended *out, struct arena *a, const struct model_config *c,
                    size_t n_context)
{
    const size_t n = (n_context + CHUNK_KEYS - 1) / CHUNK_KEYS * c->n_heads;

    out->mixed = arena_f32(a, n * c->head_dim);
    out->most = arena_f32(a, n);
    out->sum = arena_f32(a, n);
}

/* Key and value of group G of row T into the cache. */
static void keep(const struct step *s, size_t t, size_t layer, size_t g)
{
    const struct decode_row *r = &s->rows[t];
    const size_t d = s->model->weights->config.head_dim, width = r->kv->width;
    const int32_t pos = (int32_t)r->kv->n;
    float *k = kv_keys(r->kv, layer, r->kv->n) + g * d;
    float *v = kv_values(r->kv, layer, r->kv->n) + g * d;

    memcpy(k, s->room->k + t * width + g * d, d * sizeof(*k));
    memcpy(v, s->room->v + t * width + g * d, d * sizeof(*v));
    rope_forward(&s->model->rope, k, &pos, 1, 1);
}

static void attend_chunk(struct worker *w, size_t t, size_t layer, size_t chunk,
                         size_t g)
{
    const struct kernels *k = kernels();
    const struct step *s = w->step;
    const struct model_config *c = &s->model->weights->config;
    const struct decode_row *r = &s->rows[t];
    const size_t H = c->n_heads, d = c->head_dim, per = H / c->n_kv_heads;
    const size_t width = r->kv->width, first = chunk * CHUNK_KEYS;
    const bool last = first + CHUNK_KEYS > r->kv->n;
    const size_t n = last ? r->kv->n + 1 - first : CHUNK_KEYS;
    const int32_t pos = (int32_t)r->kv->n;
    float *q = w->desk->q, *p = w->desk->scores;

    if (last)
        keep(s, t, layer, g);
    memcpy(q, s->room->q + (t * H + g * per) * d, per * d * sizeof(*q));
    rope_forward(&s->model->rope, q, &pos, 1, per);
    k->scale(q, 1.0f / sqrtf((float)d), per * d);
    for (size_t i = 0; i < per; i++) {
        const size_t at = chunk * H + g * per + i;

        for (size_t from = 0, run; from < n; from += run) {
            run = kv_run(r->kv, first + from, n - from);
            k->rows(p + from, false, q + i * d,
                    kv_keys(r->kv, layer, first + from) + g * d, width, run, d);
        }
        r->attended.most[at] = k->max(p, n);
        r->attended.sum[at] = k->exp_sum(p, r->attended.most[at], n);
        for (size_t from = 0, run; from < n; from += run) {
            run = kv_run(r->kv, first + from, n - from);
            k->mix(r->attended.mixed + at * d, from > 0, p + from,
                   kv_values(r->kv, layer, first + from) + g * d, width, run, d);
        }
    }
}

void decode_attend(struct worker *w, size_t layer)
{
    const struct step *s = w->step;
    const size_t G = s->model->weights->config.n_kv_heads;
    size_t n = 0, first, end, at = 0;

    for (size_t t = 0; t < s->T; t++)
        n += n_chunks(&s->rows[t]) * G;
    team_share(w->member, n, 1, &first, &end);
    for (size_t t = 0; t < s->T && at < end; t++) {
        const size_t items = n_chunks(&s->rows[t]) * G;

        for (size_t i = at < first ? first - at : 0; i < items && at + i < end; i++)
            attend_chunk(w, t, layer, i / G, i % G);
        at += items;
    }
}

static void sum_chunks(float *out, const struct attended *a, size_t head, size_t chunks,
                       const struct model_config *c)
{
    const struct kernels *k = kernels();
    const size_t H = c->n_heads, d = c->head_dim;
    float most = -INFINITY, sum = 0.0f;

    for (size_t i = 0; i < chunks; i++)
        if (a->most[i * H + head] > most)
            most = a->most[i * H + head];
    memset(out, 0, d * sizeof(*out));
    for (size_t i = 0; i < chunks; i++) {
        const float share = expf(a->most[i * H + head] - most);

        sum += share * a->sum[i * H + head];
        k->axpy(out, share, a->mixed + (i * H + head) * d, d);
    }
    k->scale(out, 1.0f / sum, d);
}

void decode_attended(const struct step *s, float *out)
{
    const struct model_config *c = &s->model->weights->config;

    for (size_t t = 0; t < s->T; t++)
        for (size_t h = 0; h < c->n_heads; h++)
            sum_chunks(out + (t * c->n_heads + h) * c->head_dim, &s->rows[t].attended,
                       h, n_chunks(&s->rows[t]), c);
}
