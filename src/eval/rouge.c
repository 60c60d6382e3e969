/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ROUGE-L: words are runs of a-z and 0-9 after lowering the case, those longer than
 * three stemmed. Two characters outside ASCII lower to a letter inside it, the Kelvin
 * sign and I with a dot; they count.
 */
#include "eval/text_metrics.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "eval/words.h"

/* TEXT lowered into OUT (as long as TEXT), everything but letters and digits blank. */
static void flatten(char *out, const char *text)
{
    for (; *text; text++, out++) {
        const char c = *text;

        if (c >= 'A' && c <= 'Z')
            *out = (char)(c - 'A' + 'a');
        else if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
            *out = c;
        else if (!strncmp(text, "\xe2\x84\xaa", 3)) /* Kelvin: one letter, no blank */
            *out = 'k', text += 2;
        else if (!strncmp(text, "\xc4\xb0", 2)) /* i and a dot above, which is none */
            *out++ = 'i', *out = ' ', text++;
        else
            *out = ' ';
    }
    *out = '\0';
}

static int words_of(struct words *w, char **kept, const char *text,
                    struct artel_error *err)
{
    char *p = malloc(strlen(text) + 1);
    int rc = 0;

    *kept = p;
    if (!p)
        return error_nomem(err, strlen(text));
    flatten(p, text);
    while (rc == 0 && *p) {
        const size_t blanks = strspn(p, " "), n = strcspn(p + blanks, " ");

        p += blanks;
        if (n)
            rc = words_push(w, p, n > 3 ? stem_word(p, n) : n, err);
        p += n;
    }
    return rc;
}

/* Length of the longest common subsequence; ROW has room for Y's words and one. */
static size_t common(size_t *row, const struct words *x, const struct words *y)
{
    memset(row, 0, (y->n + 1) * sizeof(*row));
    for (size_t i = 0; i < x->n; i++)
        for (size_t k = 0, diagonal = 0; k < y->n; k++) {
            const size_t above = row[k + 1];

            if (x->at[i].id == y->at[k].id)
                row[k + 1] = diagonal + 1;
            else if (row[k] > above)
                row[k + 1] = row[k];
            diagonal = above;
        }
    return row[y->n];
}

int rouge_l(double *f, const char *got, const char *want, struct artel_error *err)
{
    struct words x = {0}, y = {0};
    char *kept_x = NULL, *kept_y = NULL;
    size_t *row = NULL;
    int rc = words_of(&x, &kept_x, got, err);

    *f = 0;
    if (rc == 0)
        rc = words_of(&y, &kept_y, want, err);
    if (rc == 0)
        rc = words_number(&x, &y, err);
    if (rc == 0 && !(row = malloc((y.n + 1) * sizeof(*row))))
        rc = error_nomem(err, y.n * sizeof(*row));
    if (rc == 0 && x.n && y.n) {
        const double n = (double)common(row, &x, &y);
        const double precision = n / (double)x.n, recall = n / (double)y.n;

        *f = n > 0 ? 2 * precision * recall / (precision + recall) : 0;
    }
    free(row);
    free(kept_x);
    free(kept_y);
    words_release(&x);
    words_release(&y);
    return rc;
}
