/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Candidates lie in a heap with the likeliest on top. It is built in one pass and
 * popped only as far as top_k, top_p and min_p reach, which is far cheaper than
 * sorting a vocabulary for each token. Sums run in double and in a fixed order.
 */
#include "decoder/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

int sampler_init(struct sampler *s, const struct sampler_options *o, size_t n_vocab,
                 uint64_t stream, struct artel_error *err)
{
    *s = (struct sampler){.o = *o, .n_vocab = n_vocab};
    rng_init(&s->rng, o->seed, stream);
    s->heap = malloc(n_vocab * sizeof(*s->heap));
    s->seen = calloc(n_vocab, 1);
    if (o->n_bias)
        s->bias = calloc(n_vocab, sizeof(*s->bias));
    if (o->frequency_penalty != 0 || o->presence_penalty != 0)
        s->count = calloc(n_vocab, sizeof(*s->count));
    if (!s->heap || !s->seen || (o->n_bias && !s->bias) ||
        ((o->frequency_penalty != 0 || o->presence_penalty != 0) && !s->count)) {
        sampler_release(s);
        return error_nomem(err, n_vocab * (sizeof(*s->heap) + 1));
    }
    for (size_t i = 0; i < o->n_bias; i++)
        s->bias[o->bias[i].id] += o->bias[i].bias;
    s->o.bias = NULL;
    return 0;
}

void sampler_release(struct sampler *s)
{
    free(s->heap);
    free(s->seen);
    free(s->bias);
    free(s->count);
    *s = (struct sampler){0};
}

void sampler_see(struct sampler *s, int32_t id)
{
    if (id >= 0 && (size_t)id < s->n_vocab)
        s->seen[id] = 1;
}

void sampler_wrote(struct sampler *s, int32_t id)
{
    sampler_see(s, id);
    if (s->count && id >= 0 && (size_t)id < s->n_vocab)
        s->count[id]++;
}

static bool likelier(struct candidate x, struct candidate y)
{
    return x.logit > y.logit || (x.logit == y.logit && x.id < y.id);
}

static void sift_down(struct candidate *heap, size_t n, size_t i)
{
    const struct candidate moved = heap[i];

    for (size_t child = 2 * i + 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && likelier(heap[child + 1], heap[child]))
            child++;
        if (!likelier(heap[child], moved))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moved;
}

/* Logits that are numbers and allowed, after biases and penalties. Positive infinity counts
 * as the largest float, so that differences stay finite. Returns how many. */
static size_t gather(struct sampler *s, const float *logits)
{
    const float penalty = s->o.repetition_penalty;
    size_t n = 0;

    for (size_t i = 0; i < s->n_vocab; i++) {
        float x = logits[i];

        if (isnan(x) || x == -INFINITY)
            continue;
        if (s->allowed && !(s->allowed[i / 8] >> i % 8 & 1))
            continue;
        if (s->bias)
            x += s->bias[i];
        if (s->seen[i])
            x = x > 0 ? x / penalty : x * penalty;
        if (s->count && s->count[i])
            x -= s->o.frequency_penalty * (float)s->count[i] + s->o.presence_penalty;
        if (x > 3e38f)
            x = 3e38f;
        else if (x < -3e38f)
            x = -3e38f;
        s->heap[n++] = (struct candidate){x, (int32_t)i};
    }
    return n;
}

static int32_t greedy(const struct candidate *c, size_t n)
{
    size_t best = 0;

    for (size_t i = 1; i < n; i++)
        if (likelier(c[i], c[best]))
            best = i;
    return c[best].id;
}

static double weight(const struct sampler *s, float logit, float max)
{
    return exp(((double)logit - (double)max) / (double)s->o.temperature);
}

/* Walk N candidates, FROM upwards by STEP, until U of their weight is behind. */
static int32_t draw(const struct sampler *s, const struct candidate *c, size_t n,
                    float max, double total, double u)
{
    double left = u * total;
    size_t last = 0;

    for (size_t i = 0; i < n; i++) {
        const double w = weight(s, c[i].logit, max);

        if (w > 0)
            last = i;
        left -= w;
        if (left < 0)
            return c[i].id;
    }
    return c[last].id; /* rounding left a crumb */
}

/* Pops the likeliest candidates to the end of the array, largest last; returns how many
 * are kept and the sum of their weights. */
static size_t cut(struct sampler *s, size_t n, float max, double *kept_total)
{
    struct candidate *const c = s->heap;
    const size_t most = s->o.top_k && s->o.top_k < n ? s->o.top_k : n;
    double total = 0, sum = 0;
    size_t kept = 0, left = n;

    for (size_t i = n / 2; i-- > 0;)
        sift_down(c, n, i);
    if (s->o.top_p < 1 && most == n)
        for (size_t i = 0; i < n; i++)
            total += weight(s, c[i].logit, max);
    while (kept < most) {
        const struct candidate top = c[0];
        const double w = weight(s, top.logit, max);

        if (kept && (w < (double)s->o.min_p || w == 0))
            break;
        c[0] = c[--left];
        sift_down(c, left, 0);
        c[left] = top;
        kept++;
        sum += w;
        if (most == n && s->o.top_p < 1 && sum >= (double)s->o.top_p * total)
            break;
    }
    *kept_total = sum;
    if (most < n && s->o.top_p < 1) { /* top_p of what top_k kept */
        double part = 0;
        size_t i = 0;

        while (i < kept && part < (double)s->o.top_p * sum)
            part += weight(s, c[n - ++i].logit, max);
        kept = i ? i : 1;
        *kept_total = part;
    }
    return kept;
}

int32_t sampler_pick(struct sampler *s, const float *logits)
{
    const size_t n = gather(s, logits);
    float max;
    double total = 0;
    size_t kept;

    if (!n)
        return -1;
    if (s->o.temperature <= 0)
        return greedy(s->heap, n);
    max = s->heap[0].logit;
    for (size_t i = 1; i < n; i++)
        if (s->heap[i].logit > max)
            max = s->heap[i].logit;
    if (!s->o.top_k && s->o.top_p >= 1 && s->o.min_p <= 0) {
        for (size_t i = 0; i < n; i++)
            total += weight(s, s->heap[i].logit, max);
        return draw(s, s->heap, n, max, total, (double)rng_uniform(&s->rng));
    }
    kept = cut(s, n, max, &total);
    return draw(s, s->heap + n - kept, kept, max, total, (double)rng_uniform(&s->rng));
}
