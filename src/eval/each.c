/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A set put to the experts of a mixture one after the other, where none is its own and
 * nothing routes: the mean of what was measured, and row by row what each made of it.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "artel.h"
#include "base/error.h"
#include "eval/measure.h"

bool measures_each(const struct artel_mixture *m, const struct measure_options *o)
{
    return o->expert == ARTEL_AUTO && m->mixture && !m->mixture->n_routers;
}

/* What a mean is taken of. */
static const size_t means[] = {
    offsetof(struct measured, nll),
    offsetof(struct measured, perplexity),
    offsetof(struct measured, score),
    offsetof(struct measured, acc),
    offsetof(struct measured, acc_norm),
    offsetof(struct measured, bleu),
    offsetof(struct measured, rouge_l),
    offsetof(struct measured, json_valid),
    offsetof(struct measured, json_name),
    offsetof(struct measured, judged.quality[0]),
    offsetof(struct measured, judged.quality[1]),
    offsetof(struct measured, judged.quality[2]),
    offsetof(struct measured, judged.quality[3]),
    offsetof(struct measured, judged.quality[4]),
};
_Static_assert(JUDGE_QUALITIES == 5, "each has its line above");

static double *at(struct measured *r, size_t offset)
{
    return (double *)(void *)((char *)r + offset);
}

/* ONE of E joins OUT, which has the sums of those before it. */
static int join(struct measured *out, struct measured *one, size_t e,
                struct artel_error *err)
{
    const size_t n = one->n_rows;
    double *value;

    if (!e) {
        *out = *one;
        *one = (struct measured){0};
        return 0;
    }
    if (n != out->n_rows)
        return error_set(err, ARTEL_EIO, "IO03", NULL,
                         "the file was changed while it was measured");
    value = realloc(out->value, (e + 1) * n * sizeof(*value) + 1);
    if (!value)
        return error_nomem(err, (e + 1) * n * sizeof(*value));
    memcpy(value + e * n, one->value, n * sizeof(*value));
    out->value = value;
    for (size_t i = 0; i < sizeof(means) / sizeof(means[0]); i++)
        *at(out, means[i]) += *at(one, means[i]);
    out->generated_tokens += one->generated_tokens;
    out->generate_seconds += one->generate_seconds;
    out->judged.n += one->judged.n;
    out->judged.missing += one->judged.missing;
    return 0;
}

int measure_each(struct measured *out, const struct artel_mixture *m, const char *path,
                 const struct measure_options *o, struct artel_error *err)
{
    const size_t E = m->mixture->n_experts;

    *out = (struct measured){0};
    for (size_t e = 0; e < E; e++) {
        struct measure_options own = *o;
        struct measured one;
        int rc;

        own.expert = (int)e;
        rc = measure_set(&one, m, path, &own, err);
        if (rc == 0) {
            rc = join(out, &one, e, err);
            measured_release(&one);
        }
        if (rc < 0) {
            measured_release(out);
            return rc;
        }
    }
    out->n_each = E;
    for (size_t i = 0; i < sizeof(means) / sizeof(means[0]); i++)
        *at(out, means[i]) /= (double)E;
    return 0;
}
