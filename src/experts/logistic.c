/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parameters lie as (D + 1, E), the bias last, so that what is done for one channel is
 * done for all labels at once. L-BFGS keeps the last HISTORY steps and shortens a step
 * until the loss falls enough; on a convex loss that converges from zero.
 */
#include "experts/logistic.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/list.h"

#define HISTORY    8
#define ITERATIONS 300
#define FLAT       1e-7 /* largest slope of a minimum */

int labelled_rows_add(struct labelled_rows *r, uint32_t label, const float *z,
                      struct artel_error *err)
{
    if (r->n == r->room) {
        const size_t room = r->room ? 2 * r->room : 256;
        int rc = list_grow(&r->z, room, r->dim * sizeof(*r->z), err);

        if (rc == 0)
            rc = list_grow(&r->label, room, sizeof(*r->label), err);
        if (rc < 0)
            return rc;
        r->room = room;
    }
    memcpy(r->z + r->n * r->dim, z, r->dim * sizeof(*z));
    r->label[r->n++] = label;
    return 0;
}

static size_t values_of(const struct labelled_rows *r)
{
    return r->n ? r->end[r->n - 1] : 0;
}

int labelled_rows_add_sparse(struct labelled_rows *r, uint32_t label,
                             const uint32_t *at, const float *z, size_t n,
                             struct artel_error *err)
{
    const size_t used = values_of(r);
    int rc = 0;

    if (r->n == r->room) {
        const size_t room = r->room ? 2 * r->room : 256;

        rc = list_grow(&r->label, room, sizeof(*r->label), err);
        if (rc == 0)
            rc = list_grow(&r->end, room, sizeof(*r->end), err);
        if (rc == 0)
            r->room = room;
    }
    if (rc == 0 && used + n > r->values_room) {
        const size_t room = 2 * (used + n);

        rc = list_grow(&r->z, room, sizeof(*r->z), err);
        if (rc == 0)
            rc = list_grow(&r->at, room, sizeof(*r->at), err);
        if (rc == 0)
            r->values_room = room;
    }
    if (rc < 0)
        return rc;
    if (n) {
        memcpy(r->z + used, z, n * sizeof(*z));
        memcpy(r->at + used, at, n * sizeof(*at));
    }
    r->end[r->n] = used + n;
    r->label[r->n++] = label;
    return 0;
}

void labelled_rows_release(struct labelled_rows *r)
{
    free(r->z);
    free(r->label);
    free(r->end);
    free(r->at);
    *r = (struct labelled_rows){0};
}

/* What is minimised. */
struct problem {
    const struct labelled_rows *rows;
    size_t E, n;      /* labels, parameters */
    double r, lambda; /* z is divided by R */
    double *p;        /* (E) of one row */
};

/* The numbers of row I that count: N values Z, the k-th at place AT[k], or at k. */
struct row {
    const float *z;
    const uint32_t *at; /* NULL: all there are */
    size_t n;
};

static struct row row_of(const struct labelled_rows *r, size_t i)
{
    const size_t begin = r->sparse && i ? r->end[i - 1] : 0;

    return r->sparse ? (struct row){r->z + begin, r->at + begin, r->end[i] - begin}
                     : (struct row){r->z + i * r->dim, NULL, r->dim};
}

static size_t place(const struct row *row, size_t k)
{
    return row->at ? row->at[k] : k;
}

/* P = softmax of one row's scores; returns its -log P[label]. */
static double row_loss(double *p, const double *w, const struct problem *q, size_t i)
{
    const size_t D = q->rows->dim, E = q->E;
    const struct row row = row_of(q->rows, i);
    double most, sum = 0.0, of_label;

    memcpy(p, w + D * E, E * sizeof(*p));
    for (size_t k = 0; k < row.n; k++) {
        const double x = (double)row.z[k] / q->r;
        const size_t j = place(&row, k);

        for (size_t e = 0; e < E; e++)
            p[e] += x * w[j * E + e];
    }
    most = p[0];
    for (size_t e = 1; e < E; e++)
        most = p[e] > most ? p[e] : most;
    of_label = p[q->rows->label[i]] - most;
    for (size_t e = 0; e < E; e++) {
        p[e] = exp(p[e] - most);
        sum += p[e];
    }
    for (size_t e = 0; e < E; e++)
        p[e] /= sum;
    return log(sum) - of_label;
}

/* The loss at W, its slopes into D_W. */
static double loss_at(double *d_w, const double *w, const struct problem *q)
{
    const size_t D = q->rows->dim, E = q->E, N = q->rows->n;
    double loss = 0.0;

    memset(d_w, 0, q->n * sizeof(*d_w));
    for (size_t i = 0; i < N; i++) {
        const struct row row = row_of(q->rows, i);

        loss += row_loss(q->p, w, q, i);
        q->p[q->rows->label[i]] -= 1.0;
        for (size_t k = 0; k < row.n; k++) {
            const double x = (double)row.z[k] / q->r;
            const size_t j = place(&row, k);

            for (size_t e = 0; e < E; e++)
                d_w[j * E + e] += x * q->p[e];
        }
        for (size_t e = 0; e < E; e++)
            d_w[D * E + e] += q->p[e];
    }
    loss /= (double)N;
    for (size_t k = 0; k < q->n; k++)
        d_w[k] /= (double)N;
    for (size_t k = 0; k < D * E; k++) {
        loss += 0.5 * q->lambda * w[k] * w[k];
        d_w[k] += q->lambda * w[k];
    }
    return loss;
}

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0.0;

    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* The last steps: S in the parameters, Y in the slopes. */
struct history {
    size_t n, next;
    double *s[HISTORY], *y[HISTORY], sy[HISTORY];
};

/* DOWN = - (approximate inverse Hessian) D_W, by the two-loop recursion. */
static void direction(double *down, const double *d_w, const struct history *h,
                      size_t n)
{
    double alpha[HISTORY];

    for (size_t i = 0; i < n; i++)
        down[i] = -d_w[i];
    for (size_t k = 0; k < h->n; k++) {
        const size_t at = (h->next + HISTORY - 1 - k) % HISTORY;

        alpha[at] = dot(h->s[at], down, n) / h->sy[at];
        for (size_t i = 0; i < n; i++)
            down[i] -= alpha[at] * h->y[at][i];
    }
    if (h->n) {
        const size_t last = (h->next + HISTORY - 1) % HISTORY;
        const double by = h->sy[last] / dot(h->y[last], h->y[last], n);

        for (size_t i = 0; i < n; i++)
            down[i] *= by;
    }
    for (size_t k = h->n; k-- > 0;) {
        const size_t at = (h->next + HISTORY - 1 - k) % HISTORY;
        const double beta = dot(h->y[at], down, n) / h->sy[at];

        for (size_t i = 0; i < n; i++)
            down[i] += (alpha[at] - beta) * h->s[at][i];
    }
}

/* From W along DOWN, halving; the new point and slopes to NEXT and D_NEXT. False: no step
 * lowers the loss any more. */
static bool line_search(double *next, double *d_next, double *loss, const double *w,
                        const double *down, double slope, const struct problem *q)
{
    for (double t = 1.0; t > 1e-10; t *= 0.5) {
        double there;

        for (size_t i = 0; i < q->n; i++)
            next[i] = w[i] + t * down[i];
        there = loss_at(d_next, next, q);
        if (there <= *loss + 1e-4 * t * slope) {
            *loss = there;
            return true;
        }
    }
    return false;
}

static void remember(struct history *h, const double *w, const double *next,
                     const double *d_w, const double *d_next, size_t n)
{
    const size_t at = h->next;

    for (size_t i = 0; i < n; i++) {
        h->s[at][i] = next[i] - w[i];
        h->y[at][i] = d_next[i] - d_w[i];
    }
    h->sy[at] = dot(h->s[at], h->y[at], n);
    if (!(h->sy[at] > 0.0))
        return;
    h->next = (at + 1) % HISTORY;
    h->n += h->n < HISTORY;
}

/* W starts as zeros. ROOM: (4 + 2 HISTORY) n doubles. */
static void minimise(double *w, double *room, const struct problem *q)
{
    const size_t n = q->n;
    double *d_w = room, *next = d_w + n, *d_next = next + n, *down = d_next + n;
    struct history h = {0};
    double loss = loss_at(d_w, w, q);

    for (size_t k = 0; k < HISTORY; k++) {
        h.s[k] = down + (1 + 2 * k) * n;
        h.y[k] = h.s[k] + n;
    }
    for (size_t turn = 0; turn < ITERATIONS; turn++) {
        double steepest = 0.0;

        for (size_t i = 0; i < n; i++)
            steepest = fabs(d_w[i]) > steepest ? fabs(d_w[i]) : steepest;
        if (!(steepest > FLAT))
            return;
        direction(down, d_w, &h, n);
        if (!line_search(next, d_next, &loss, w, down, dot(d_w, down, n), q))
            return;
        remember(&h, w, next, d_w, d_next, n);
        memcpy(w, next, n * sizeof(*w));
        memcpy(d_w, d_next, n * sizeof(*d_w));
    }
}

/* Root mean square of all numbers; 0 or no number where that does not do. */
static double scale_of(const struct labelled_rows *rows)
{
    const size_t n = rows->n * rows->dim;
    const size_t n_values = rows->sparse ? values_of(rows) : n;
    double sum = 0.0;

    for (size_t i = 0; i < n_values; i++)
        sum += (double)rows->z[i] * (double)rows->z[i];
    return n ? sqrt(sum / (double)n) : 0.0;
}

int logistic_solve(float *w, float *b, const struct labelled_rows *rows,
                   size_t n_labels, double lambda, struct artel_error *err)
{
    const size_t D = rows->dim, E = n_labels, n = (D + 1) * E;
    struct problem q = {rows, E, n, scale_of(rows), lambda, NULL};
    double *at, *room;

    if (!(q.r > 0.0 && isfinite(q.r)))
        return error_set(err, ARTEL_EFORMAT, "MIX21", NULL,
                         "a classifier cannot be found: are there rows, and is every "
                         "hidden state finite?");
    at = calloc(n + E, sizeof(*at));
    room = malloc((4 + 2 * HISTORY) * n * sizeof(*room));
    if (!at || !room) {
        free(at);
        free(room);
        return error_nomem(err, (5 + 2 * HISTORY) * n * sizeof(*at));
    }
    q.p = at + n;
    minimise(at, room, &q);
    for (size_t e = 0; e < E; e++) {
        for (size_t j = 0; j < D; j++)
            w[e * D + j] = (float)(at[j * E + e] / q.r);
        b[e] = (float)at[D * E + e];
    }
    free(at);
    free(room);
    return 0;
}
