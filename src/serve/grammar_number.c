/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers between two bounds, digit by digit: as long as the digits so far are those of
 * the lower (upper) bound, the next may not be below (above) its next.
 *
 * At most WHOLE_DIGITS digits before the point and FRACTION_DIGITS after it: what every
 * reader of JSON can hold, and an end to what a model can write.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "serve/grammar_text.h"

#define WHOLE_DIGITS    18
#define FRACTION_DIGITS 16
#define EXACT_DIGITS    15 /* that every double keeps apart */
#define USUAL_FRACTION  6  /* digits after the point, beside bounds that have fewer */
#define MULTIPLE_MOST   256
#define NO_STATE        UINT32_MAX

enum { TIGHT_LOW = 1, TIGHT_HIGH = 2 };

/* Not negative. */
struct decimal {
    char whole[24]; /* at most WHOLE_DIGITS digits, no leading 0 but "0" itself */
    char fraction[FRACTION_DIGITS + 1]; /* digits, padded by 0 */
};

struct bound {
    bool set, negative, exclusive;
    struct decimal is;
};

/* Numbers of one sign between LOW and HIGH. */
struct digits {
    struct net_build *b;
    struct decimal low, high;
    bool above, below;                         /* the bounds themselves are left out */
    unsigned fractions;                        /* digits after the point, 0: no point */
    unsigned multiple;                         /* of whole numbers */
    uint32_t *free_whole;                      /* (WHOLE_DIGITS + 1, multiple) */
    uint32_t fraction[FRACTION_DIGITS + 1][4]; /* by digits and tightness */
};

static bool zeros(const char *digits)
{
    return strspn(digits, "0") == strlen(digits);
}

/* May the number end after N digits of the fraction? Those not written are 0. */
static bool may_end(const struct digits *d, unsigned tight, size_t n)
{
    if ((tight & TIGHT_LOW) && (d->above || !zeros(d->low.fraction + n)))
        return false;
    return !(tight & TIGHT_HIGH) || !d->below || !zeros(d->high.fraction + n);
}

/* The tightness after DIGIT where the bounds have LOW and HIGH; -1: not between. */
static int tightened(unsigned tight, char digit, char low, char high)
{
    if ((tight & TIGHT_LOW) && digit < low)
        return -1;
    if ((tight & TIGHT_HIGH) && digit > high)
        return -1;
    if (digit != low)
        tight &= ~(unsigned)TIGHT_LOW;
    if (digit != high)
        tight &= ~(unsigned)TIGHT_HIGH;
    return (int)tight;
}

/* N digits of the fraction have come. */
static uint32_t fraction_state(struct digits *d, unsigned n, unsigned tight)
{
    uint32_t at = d->fraction[n][tight];

    if (at != NO_STATE)
        return at;
    d->fraction[n][tight] = at = net_state(d->b);
    if (n > 0 && may_end(d, tight, n))
        net_accept(d->b, at);
    if (n == d->fractions)
        return at;
    for (char c = '0'; c <= '9'; c++) {
        const int then = tightened(tight, c, d->low.fraction[n], d->high.fraction[n]);

        if (then >= 0)
            net_bytes(d->b, at, (unsigned char)c, (unsigned char)c,
                      fraction_state(d, n + 1, (unsigned)then));
    }
    return at;
}

/* All N digits of a whole number of length N have come. */
static void whole_end(struct digits *d, uint32_t at, unsigned tight, unsigned rest)
{
    if (rest == 0 && may_end(d, tight, 0))
        net_accept(d->b, at);
    if (d->fractions) {
        const uint32_t next = fraction_state(d, 0, tight);

        net_bytes(d->b, at, '.', '.', next);
    }
}

/* LEFT more digits, none of them bound. */
static uint32_t free_state(struct digits *d, unsigned left, unsigned rest)
{
    uint32_t *memo = &d->free_whole[left * d->multiple + rest];

    if (*memo != NO_STATE)
        return *memo;
    *memo = net_state(d->b);
    if (left == 0) {
        whole_end(d, *memo, 0, rest);
    } else if (d->multiple == 1) {
        net_bytes(d->b, *memo, '0', '9', free_state(d, left - 1, 0));
    } else {
        for (unsigned c = 0; c < 10; c++)
            net_bytes(d->b, *memo, '0' + c, '0' + c,
                      free_state(d, left - 1, (rest * 10 + c) % d->multiple));
    }
    return *memo;
}

/* From AT on, N of LENGTH digits have come; at least one bound is tight, or none at
 * N 0. Recursion goes as deep as a number is long. */
static void whole_digits(struct digits *d, uint32_t at, unsigned length, unsigned n,
                         unsigned tight, unsigned rest)
{
    if (n == length) {
        whole_end(d, at, tight, rest);
        return;
    }
    for (char c = n == 0 && length > 1 ? '1' : '0'; c <= '9'; c++) {
        const char low = tight & TIGHT_LOW ? d->low.whole[n] : '0';
        const char high = tight & TIGHT_HIGH ? d->high.whole[n] : '9';
        const int then = tightened(tight, c, low, high);
        const unsigned next = (rest * 10 + (unsigned)(c - '0')) % d->multiple;
        uint32_t to;

        if (then < 0)
            continue;
        to = then ? net_state(d->b) : free_state(d, length - n - 1, next);
        net_bytes(d->b, at, (unsigned char)c, (unsigned char)c, to);
        if (then)
            whole_digits(d, to, length, n + 1, (unsigned)then, next);
    }
}

static void between(struct digits *d, uint32_t from)
{
    const size_t least = strlen(d->low.whole), most = strlen(d->high.whole);
    const size_t n = (WHOLE_DIGITS + 1) * (size_t)d->multiple;

    d->free_whole = malloc(n * sizeof(*d->free_whole));
    if (!d->free_whole) {
        if (!d->b->rc)
            d->b->rc = error_nomem(d->b->err, n * sizeof(*d->free_whole));
        return;
    }
    for (size_t i = 0; i < n; i++)
        d->free_whole[i] = NO_STATE;
    memset(d->fraction, 0xff, sizeof(d->fraction));
    for (size_t length = least; length <= most; length++)
        whole_digits(
            d, from, (unsigned)length, 0,
            (length == least ? TIGHT_LOW : 0u) | (length == most ? TIGHT_HIGH : 0u), 0);
    free(d->free_whole);
}

static int compared(const struct decimal *a, const struct decimal *b)
{
    const size_t n = strlen(a->whole), m = strlen(b->whole);
    const int whole = n != m ? (n < m ? -1 : 1) : strcmp(a->whole, b->whole);

    return whole ? whole : strcmp(a->fraction, b->fraction);
}

/* X (not negative) as digits; false: more of them than we keep. */
static bool decimal_of(struct decimal *out, double x)
{
    char text[64];
    int digits = 15, exponent;

    do
        snprintf(text, sizeof(text), "%.*e", digits - 1, x);
    while (strtod(text, NULL) != x && ++digits <= 17);
    exponent = atoi(strchr(text, 'e') + 1);
    if (x != 0 && (exponent >= WHOLE_DIGITS || exponent < -FRACTION_DIGITS))
        return false;
    snprintf(text, sizeof(text), "%.*f",
             digits - 1 > exponent ? digits - 1 - exponent : 0, x);
    memset(out->fraction, '0', FRACTION_DIGITS);
    out->fraction[FRACTION_DIGITS] = 0;
    if (strchr(text, '.')) {
        char *fraction = strchr(text, '.');
        size_t n;

        *fraction++ = 0;
        n = strlen(fraction);
        while (n && fraction[n - 1] == '0')
            n--;
        if (n > FRACTION_DIGITS)
            return false;
        memcpy(out->fraction, fraction, n);
    }
    if (strlen(text) > WHOLE_DIGITS)
        return false;
    memcpy(out->whole, text, strlen(text) + 1);
    return true;
}

static int read_bound(struct net_build *b, struct bound *out, const json_t *schema,
                      const char *keyword, bool exclusive, bool upper,
                      const char *place)
{
    const json_t *value = json_object_get(schema, keyword);
    struct bound is = {.set = true, .exclusive = exclusive};
    int way;

    if (!value)
        return 0;
    if (!json_is_number(value))
        return schema_refused(b, place, keyword, "must be a number");
    is.negative = json_number_value(value) < 0;
    if (json_is_integer(value)) {
        const json_int_t x = json_integer_value(value);

        if (x <= -1000000000000000000 || x >= 1000000000000000000)
            return schema_refused(b, place, keyword, "more than %d digits",
                                  WHOLE_DIGITS);
        snprintf(is.is.whole, sizeof(is.is.whole), "%lld", x < 0 ? -x : x);
        memset(is.is.fraction, '0', FRACTION_DIGITS);
    } else if (!decimal_of(&is.is, fabs(json_real_value(value)))) {
        return schema_refused(b, place, keyword,
                              "more than %d digits before the point, or %d after it",
                              WHOLE_DIGITS, FRACTION_DIGITS);
    }
    if (out->set) { /* the tighter of two */
        way = is.negative != out->negative
                  ? (is.negative ? -1 : 1)
                  : compared(&is.is, &out->is) * (is.negative ? -1 : 1);
        if (way == 0)
            out->exclusive = out->exclusive || exclusive;
        if (way == 0 || (way > 0) == upper)
            return 0;
    }
    *out = is;
    return 0;
}

/* The next whole number not below (UPPER: not above) what BOUND lets through. */
static long long whole_bound(const struct bound *bound, bool upper)
{
    const bool exact = zeros(bound->is.fraction);
    long long x = atoll(bound->is.whole);

    if (bound->negative)
        x = -x;
    if (exact)
        return bound->exclusive ? x + (upper ? -1 : 1) : x;
    /* atoll() went towards 0. */
    if (upper)
        return bound->negative ? x - 1 : x;
    return bound->negative ? x : x + 1;
}

static void plain_decimal(struct decimal *out, long long x)
{
    snprintf(out->whole, sizeof(out->whole), "%lld", x);
    memset(out->fraction, '0', FRACTION_DIGITS);
    out->fraction[FRACTION_DIGITS] = 0;
}

static int integers(struct net_build *b, uint32_t from, const struct bound *low,
                    const struct bound *high, unsigned multiple, const char *place)
{
    const long long most = 999999999999999999;
    const long long lo = low->set ? whole_bound(low, false) : -most;
    const long long hi = high->set ? whole_bound(high, true) : most;
    struct digits d = {.b = b, .multiple = multiple};

    if (lo > hi || lo > most || hi < -most)
        return schema_refused(b, place, NULL, "no integer is between its bounds");
    if (hi >= 0) {
        plain_decimal(&d.low, lo > 0 ? lo : 0);
        plain_decimal(&d.high, hi);
        between(&d, from);
    }
    if (lo < 0) {
        const uint32_t minus = net_state(b);

        net_bytes(b, from, '-', '-', minus);
        plain_decimal(&d.low, hi < 0 ? -hi : 1);
        plain_decimal(&d.high, -lo);
        between(&d, minus);
    }
    return b->rc;
}

/* Digits that are bound after the point, or whole ones. */
static size_t digits_of(const struct bound *bound, bool whole)
{
    size_t n = strlen(whole ? bound->is.whole : bound->is.fraction);

    if (!bound->set)
        return 0;
    while (!whole && n && bound->is.fraction[n - 1] == '0')
        n--;
    return n;
}

/* Room for digits so that no two numbers round to the same double: one that is not the
 * bound must not be read as the bound. */
static void share_digits(struct digits *d, struct decimal *most,
                         const struct bound *low, const struct bound *high)
{
    size_t after = digits_of(low, false), before = digits_of(low, true);

    if (digits_of(high, false) > after)
        after = digits_of(high, false);
    if (digits_of(high, true) > before)
        before = digits_of(high, true);
    if (after < USUAL_FRACTION)
        after = before + USUAL_FRACTION <= EXACT_DIGITS ? USUAL_FRACTION
                : before + after < EXACT_DIGITS         ? EXACT_DIGITS - before
                                                        : after;
    if (before + after < EXACT_DIGITS)
        before = EXACT_DIGITS - after;
    d->fractions = (unsigned)after;
    memset(most->whole, '9', before);
    most->whole[before] = 0;
    memset(most->fraction, '9', FRACTION_DIGITS);
    most->fraction[FRACTION_DIGITS] = 0;
}

/* Both signs, each with its own pair of bounds; LOW and HIGH change places below 0. */
static int decimals(struct net_build *b, uint32_t from, const struct bound *low,
                    const struct bound *high, const char *place)
{
    struct digits d = {.b = b, .multiple = 1};
    struct decimal zero, most;
    int way = 0;

    plain_decimal(&zero, 0);
    share_digits(&d, &most, low, high);
    if (low->set && high->set) {
        way = low->negative != high->negative
                  ? (low->negative ? -1 : 1)
                  : compared(&low->is, &high->is) * (low->negative ? -1 : 1);
        if (way > 0 || (way == 0 && (low->exclusive || high->exclusive)))
            return schema_refused(b, place, NULL, "no number is between its bounds");
    }
    if (!high->set || !high->negative) {
        const bool bound = low->set && !low->negative;

        d.low = bound ? low->is : zero;
        d.above = bound && low->exclusive;
        d.high = high->set ? high->is : most;
        d.below = high->set && high->exclusive;
        between(&d, from);
    }
    if (!low->set || low->negative) {
        const bool bound = high->set && high->negative;
        const uint32_t minus = net_state(b);

        net_bytes(b, from, '-', '-', minus);
        d.low = bound ? high->is : zero;
        d.above = bound ? high->exclusive : true; /* no -0 */
        d.high = low->set ? low->is : most;
        d.below = low->set && low->exclusive;
        between(&d, minus);
    }
    return b->rc;
}

static void number_end(struct net_build *b, uint32_t at, uint32_t point,
                       uint32_t exponent)
{
    net_accept(b, at);
    if (point)
        net_bytes(b, at, '.', '.', point);
    net_bytes(b, at, 'e', 'e', exponent);
    net_bytes(b, at, 'E', 'E', exponent);
}

/* Any number: with an exponent, too. */
static void any_number(struct net_build *b, uint32_t from)
{
    const uint32_t minus = net_state(b), zero = net_state(b), point = net_state(b);
    const uint32_t exponent = net_state(b), sign = net_state(b), last = net_state(b);
    const uint32_t one = net_state(b);
    uint32_t at = net_state(b);

    net_bytes(b, from, '-', '-', minus);
    for (int i = 0; i < 2; i++) {
        net_bytes(b, i ? from : minus, '0', '0', zero);
        net_bytes(b, i ? from : minus, '1', '9', at);
    }
    net_bytes(b, exponent, '+', '+', sign);
    net_bytes(b, exponent, '-', '-', sign);
    net_bytes(b, exponent, '0', '9', one);
    net_bytes(b, sign, '0', '9', one);
    net_bytes(b, one, '0', '9', last);
    net_accept(b, one);
    net_accept(b, last);
    number_end(b, zero, point, exponent);
    for (int i = 0; i < WHOLE_DIGITS; i++) {
        const uint32_t next = net_state(b);

        number_end(b, at, point, exponent);
        if (i + 1 < WHOLE_DIGITS)
            net_bytes(b, at, '0', '9', next);
        at = next;
    }
    at = point;
    for (int i = 0; i < FRACTION_DIGITS; i++) {
        const uint32_t next = net_state(b);

        net_bytes(b, at, '0', '9', next);
        number_end(b, next, 0, exponent);
        at = next;
    }
}

int text_number(struct net_build *b, uint32_t from, const json_t *schema, bool integer,
                const char *place)
{
    const json_t *multiple = json_object_get(schema, "multipleOf");
    struct bound low = {0}, high = {0};
    double step = 1;

    if (multiple) {
        step = json_number_value(multiple);
        if (!json_is_number(multiple) || !(step > 0))
            return schema_refused(b, place, "multipleOf", "must be a number above 0");
        if (step > MULTIPLE_MOST || floor(step) != step)
            return schema_refused(b, place, "multipleOf",
                                  "only integers up to %d are supported",
                                  MULTIPLE_MOST);
        integer = true;
    }
    if (read_bound(b, &low, schema, "minimum", false, false, place) < 0 ||
        read_bound(b, &low, schema, "exclusiveMinimum", true, false, place) < 0 ||
        read_bound(b, &high, schema, "maximum", false, true, place) < 0 ||
        read_bound(b, &high, schema, "exclusiveMaximum", true, true, place) < 0)
        return b->rc;
    if (integer)
        return integers(b, from, &low, &high, (unsigned)step, place);
    if (low.set || high.set)
        return decimals(b, from, &low, &high, place);
    any_number(b, from);
    return b->rc;
}
