/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ticks at 1, 2 and 5 times powers of ten. A logarithmic axis over less than a factor of
 * four has too few of these and takes the ticks of a linear one.
 */
#include "eval/scale.h"

#include <math.h>

static double round_step(double raw)
{
    const double power = pow(10, floor(log10(raw)));
    const double x = raw / power;

    return power * (x <= 1 ? 1 : x <= 2 ? 2 : x <= 5 ? 5 : 10);
}

static void add_tick(struct scale *s, double value)
{
    if (s->n_ticks < SCALE_TICKS)
        s->tick[s->n_ticks++] = value;
}

static void linear_ticks(struct scale *s, double low, double high, size_t n)
{
    const double step = round_step((high - low) / (double)n);

    for (double k = ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++)
        add_tick(s, fabs(k) < 0.5 ? 0 : k * step);
}

static void log_ticks(struct scale *s, double low, double high, size_t n)
{
    static const double leads[] = {1, 2, 5};
    const double decades = log10(high / low);
    /* All three leads where there is room, else the powers, or every so many of them. */
    const int n_leads = 3 * decades <= (double)n + 1 ? 3 : 1;
    const int stride = n_leads == 3 ? 1 : (int)ceil(decades / (double)n);

    for (int p = (int)floor(log10(low)); p <= (int)ceil(log10(high)); p += stride)
        for (int i = 0; i < n_leads; i++) {
            const double v = leads[i] * pow(10, p);

            if (v >= low * 0.999 && v <= high * 1.001)
                add_tick(s, v);
        }
}

void scale_fit(struct scale *s, double low, double high, bool logarithmic, size_t n)
{
    const double a = logarithmic ? log(low) : low, b = logarithmic ? log(high) : high;
    const double spread = b - a > 0 ? b - a : fabs(b) > 0 ? 0.1 * fabs(b) : 1;

    *s = (struct scale){.logarithmic = logarithmic};
    s->low = a - 0.04 * spread;
    s->high = b + 0.04 * spread;
    low = logarithmic ? exp(s->low) : s->low;
    high = logarithmic ? exp(s->high) : s->high;
    if (logarithmic && high / low >= 4)
        log_ticks(s, low, high, n);
    else
        linear_ticks(s, low, high, n);
}

double scale_at(const struct scale *s, double value)
{
    const double v = s->logarithmic ? log(value) : value;
    const double at = 100 * (v - s->low) / (s->high - s->low);

    return at < 0 ? 0 : at > 100 ? 100 : at;
}
