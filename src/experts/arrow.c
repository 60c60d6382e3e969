/* SPDX-License-Identifier: Apache-2.0 */
/*
 *     A A^T = Q L Q^T     S = L^(1/2) Q^T     S (B^T B) S^T = P K P^T
 *     v = A^T Q L^(-1/2) p     p the last column of P, whose eigenvalue is the largest
 *
 * A = S^T-rows times an orthonormal W: A = Q L^(1/2) W, so that B A = (B Q L^(1/2)) W and
 * what is left is the right singular vector p of a narrow matrix; v = W^T p.
 */
#include "experts/arrow.h"

#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* Directions of A weaker than this beside its strongest carry rounding alone. */
#define WEAK 1e-14

/* G (R, R) = X X^T of rows X (R, N), or X^T X of columns X (N, R). */
static void gram(double *g, const float *x, size_t R, size_t N, bool columns)
{
    const size_t row = columns ? 1 : N, step = columns ? R : 1;

    for (size_t i = 0; i < R; i++)
        for (size_t j = 0; j <= i; j++) {
            double sum = 0.0;

            for (size_t n = 0; n < N; n++)
                sum += (double)x[i * row + n * step] * (double)x[j * row + n * step];
            g[i * R + j] = g[j * R + i] = sum;
        }
}

/* TO = X Y of square matrices; TURNED: X Y^T. */
static void multiply(double *to, const double *x, const double *y, size_t R,
                     bool turned)
{
    for (size_t i = 0; i < R; i++)
        for (size_t j = 0; j < R; j++) {
            double sum = 0.0;

            for (size_t k = 0; k < R; k++)
                sum += x[i * R + k] * (turned ? y[j * R + k] : y[k * R + j]);
            to[i * R + j] = sum;
        }
}

/* Eigenvectors into the columns of G, their values ascending into VALUE. */
static int eigen(double *g, double *value, size_t R, struct artel_error *err)
{
    const lapack_int info = LAPACKE_dsyev(LAPACK_ROW_MAJOR, 'V', 'U', (lapack_int)R, g,
                                          (lapack_int)R, value);

    if (info != 0)
        return error_set(err, ARTEL_EFORMAT, "MIX20", NULL,
                         "eigenvalues of a rank %zu product did not converge (%d)", R,
                         (int)info);
    return 0;
}

/* V from the weights C (R) of the rows of A. */
static void combine(float *v, const double *c, const struct lora *l)
{
    size_t largest = 0;
    double length = 0.0;

    for (size_t j = 0; j < l->n_in; j++) {
        double sum = 0.0;

        for (size_t r = 0; r < l->rank; r++)
            sum += c[r] * (double)l->a[r * l->n_in + j];
        v[j] = (float)sum;
        length += sum * sum;
        largest = fabsf(v[j]) > fabsf(v[largest]) ? j : largest;
    }
    length = sqrt(length);
    if (v[largest] < 0.0f)
        length = -length;
    for (size_t j = 0; j < l->n_in; j++)
        v[j] = length != 0.0 ? (float)((double)v[j] / length) : 0.0f;
}

static int prototype(float *v, const struct lora *l, double *room,
                     struct artel_error *err)
{
    const size_t R = l->rank, RR = R * R;
    double *q = room, *s = q + RR, *h = s + RR, *t = h + RR, *value = t + RR,
           *c = value + R;
    double strongest;
    int rc;

    gram(q, l->a, R, l->n_in, false);
    rc = eigen(q, value, R, err);
    if (rc < 0)
        return rc;
    strongest = value[R - 1];
    for (size_t i = 0; i < R; i++)
        for (size_t j = 0; j < R; j++)
            s[i * R + j] = value[i] > 0.0 ? sqrt(value[i]) * q[j * R + i] : 0.0;
    gram(h, l->b, R, l->n_out, true);
    multiply(t, s, h, R, false);
    multiply(h, t, s, R, true);
    rc = eigen(h, t, R, err); /* values to T */
    if (rc < 0)
        return rc;
    memset(c, 0, R * sizeof(*c));
    for (size_t k = 0; k < R && t[R - 1] > 0.0; k++) {
        if (value[k] <= WEAK * strongest)
            continue;
        for (size_t r = 0; r < R; r++)
            c[r] += q[r * R + k] / sqrt(value[k]) * h[k * R + R - 1];
    }
    combine(v, c, l);
    return 0;
}

int arrow_prototype(float *v, const struct lora *l, struct artel_error *err)
{
    const size_t R = l->rank, n = 4 * R * R + 2 * R;
    double *room = malloc(n * sizeof(*room));
    int rc;

    if (!room)
        return error_nomem(err, n * sizeof(*room));
    rc = prototype(v, l, room, err);
    free(room);
    return rc;
}

int arrow_rows(struct mixture *m, size_t first, struct artel_error *err)
{
    int rc = 0;

    for (size_t i = 0; i < m->n_routers; i++)
        for (size_t e = first; rc == 0 && e < m->n_experts; e++) {
            const struct lora *l = &m->experts[e].lora[i];
            const size_t N = m->routers[i].dim;
            float *v = m->routers[i].w + e * N;

            if (m->experts[e].kind == EXPERT_LORA && l->rank)
                rc = arrow_prototype(v, l, err);
            else
                memset(v, 0, N * sizeof(*v));
        }
    return rc;
}
