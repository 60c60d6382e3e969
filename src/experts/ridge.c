/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums in double; LAPACK's Cholesky solves all columns at once.
 */
#include "experts/ridge.h"

#include <lapacke.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

int ridge_init(struct ridge_sums *r, size_t n, size_t n_domains,
               struct artel_error *err)
{
    const size_t D = n + 1;

    *r = (struct ridge_sums){.dim = D, .n_domains = n_domains};
    r->g = calloc(D * D, sizeof(*r->g));
    r->s = calloc(n_domains ? n_domains * D : 1, sizeof(*r->s));
    if (!r->g || !r->s) {
        ridge_release(r);
        return error_nomem(err, (D + n_domains) * D * sizeof(*r->g));
    }
    return 0;
}

void ridge_release(struct ridge_sums *r)
{
    free(r->g);
    free(r->s);
    *r = (struct ridge_sums){0};
}

int ridge_grow(struct ridge_sums *r, struct artel_error *err)
{
    const size_t D = r->dim, n = (r->n_domains + 1) * D * sizeof(*r->s);
    double *s = realloc(r->s, n);

    if (!s)
        return error_nomem(err, n);
    memset(s + r->n_domains * D, 0, D * sizeof(*s));
    r->s = s;
    r->n_domains++;
    return 0;
}

void ridge_drop(struct ridge_sums *r, size_t domain)
{
    const size_t D = r->dim, after = r->n_domains - 1 - domain;

    memmove(r->s + domain * D, r->s + (domain + 1) * D, after * D * sizeof(*r->s));
    r->n_domains--;
}

void ridge_add(struct ridge_sums *r, size_t domain, const float *z)
{
    const size_t D = r->dim, n = D - 1;
    double *s = r->s + domain * D;

    for (size_t i = 0; i < n; i++) {
        double *g = r->g + i * D;

        for (size_t j = 0; j <= i; j++)
            g[j] += (double)z[i] * (double)z[j];
        s[i] += (double)z[i];
    }
    for (size_t j = 0; j < n; j++)
        r->g[n * D + j] += (double)z[j];
    r->g[n * D + n] += 1.0;
    s[n] += 1.0;
}

int ridge_solve(float *w, float *b, const struct ridge_sums *r, double lambda,
                struct artel_error *err)
{
    const size_t D = r->dim, E = r->n_domains, n = D - 1;
    double *g = malloc(D * D * sizeof(*g)), *x = malloc(E * D * sizeof(*x));
    double trace = 0.0;
    lapack_int info;

    if (!g || !x) {
        free(g);
        free(x);
        return error_nomem(err, (D + E) * D * sizeof(*g));
    }
    memcpy(g, r->g, D * D * sizeof(*g));
    memcpy(x, r->s, E * D * sizeof(*x));
    for (size_t i = 0; i < D; i++)
        trace += g[i * D + i];
    for (size_t i = 0; i < D; i++)
        g[i * D + i] += lambda * trace / (double)D;
    /* Row by row, the lower half is what LAPACK calls the upper one; each row of X is a
     * column of its right side. */
    info = LAPACKE_dposv(LAPACK_COL_MAJOR, 'U', (lapack_int)D, (lapack_int)E, g,
                         (lapack_int)D, x, (lapack_int)D);
    for (size_t e = 0; info == 0 && e < E; e++) {
        for (size_t j = 0; j < n; j++)
            w[e * n + j] = (float)x[e * D + j];
        b[e] = (float)x[e * D + n];
    }
    free(g);
    free(x);
    if (info != 0)
        return error_set(err, ARTEL_EFORMAT, "MIX21", NULL,
                         "the sums of a ridge router cannot be solved (%d): are there "
                         "rows, and is every hidden state finite?",
                         (int)info);
    return 0;
}
