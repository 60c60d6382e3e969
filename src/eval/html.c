/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page's numbers are printed in the C locale, as everything in the library.
 */
#include "eval/html.h"

#include <math.h>
#include <string.h>

void html_text(FILE *f, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '&':
            fputs("&amp;", f);
            break;
        case '<':
            fputs("&lt;", f);
            break;
        case '>':
            fputs("&gt;", f);
            break;
        case '"':
            fputs("&quot;", f);
            break;
        case '\'':
            fputs("&#39;", f);
            break;
        default:
            if ((unsigned char)*text < 0x20 || *text == 0x7f)
                fputs("\xef\xbf\xbd", f);
            else
                fputc(*text, f);
        }
    }
}

void html_name(FILE *f, const char *text)
{
    fputs("<bdi>", f);
    html_text(f, text);
    fputs("</bdi>", f);
}

void html_mark(FILE *f, size_t idx, const char *style, const char *title)
{
    /* 8 colours and 5 shapes have no common factor: 40 methods differ. */
    fprintf(f, "<i class=\"mark c%zu s%zu\"", idx % 8, idx % 5);
    if (style)
        fprintf(f, " style=\"%s\"", style);
    if (title) {
        fputs(" title=\"", f);
        html_text(f, title);
        fputc('"', f);
    }
    fputs("></i>", f);
}

/* 1234567 as "1,234,567". */
static void count_text(char *out, size_t size, double v)
{
    char digits[40];
    const int n = snprintf(digits, sizeof(digits), "%.0f", v);
    size_t at = 0;

    for (int i = 0; i < n && at + 2 < size; i++) {
        if (i && (n - i) % 3 == 0 && digits[i - 1] != '-')
            out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = '\0';
}

const char *number_text(char *out, size_t size, double v, enum number_kind kind)
{
    if (!isfinite(v))
        snprintf(out, size, "–");
    else if (kind == NUMBER_SHARE)
        snprintf(out, size, "%.1f %%", 100 * v);
    else if (kind == NUMBER_CHANGE)
        snprintf(out, size, "%+.1f", 100 * v);
    else if (kind == NUMBER_SIGNED)
        snprintf(out, size, "%+.4g", v);
    else if (kind == NUMBER_COUNT)
        count_text(out, size, v);
    else if (fabs(v) >= 1e4)
        snprintf(out, size, "%.0f", v);
    else
        snprintf(out, size, "%.4g", v);
    return out;
}

void html_cell(FILE *f, double v, enum number_kind kind, const char *classes)
{
    char text[48];

    fputs("<td", f);
    if (!isfinite(v))
        fputs(" class=\"none\"", f);
    else if (classes && *classes)
        fprintf(f, " class=\"%s\"", classes);
    fprintf(f, ">%s</td>", number_text(text, sizeof(text), v, kind));
}

void html_table_begin(FILE *f, const char *id)
{
    fprintf(f,
            "<div class=\"scroll\" role=\"region\" aria-labelledby=\"%s\" "
            "tabindex=\"0\"><table><caption id=\"%s\">",
            id, id);
}

void html_caption_end(FILE *f)
{
    fputs("</caption>\n", f);
}

void html_table_end(FILE *f)
{
    fputs("</table></div>\n", f);
}

void html_ticks(FILE *f, const struct scale *s)
{
    for (size_t i = 0; i < s->n_ticks; i++)
        fprintf(f, "<u%s style=\"left:%.2f%%\"></u>",
                s->tick[i] == 0 ? " class=\"zero\"" : "", scale_at(s, s->tick[i]));
}

/* May a tick be left unnamed where there is little room? Not where two powers of ten
 * would not remain. */
static bool is_minor(const struct scale *s, size_t i)
{
    size_t n_powers = 0;
    bool power = false;

    for (size_t k = 0; s->logarithmic && k < s->n_ticks; k++) {
        const double decade = log10(s->tick[k]);
        const bool whole = fabs(decade - round(decade)) < 1e-9;

        n_powers += whole;
        power = k == i ? whole : power;
    }
    return n_powers >= 2 && !power;
}

void html_axis(FILE *f, const struct scale *s, enum number_kind kind)
{
    char text[48];

    fputs("<div></div><div class=\"track axis\">", f);
    for (size_t i = 0; i < s->n_ticks; i++) {
        if (kind == NUMBER_SHARE)
            snprintf(text, sizeof(text), "%.4g %%", 100 * s->tick[i]);
        else if (kind == NUMBER_CHANGE)
            snprintf(text, sizeof(text), "%.3g", 100 * s->tick[i]);
        else
            number_text(text, sizeof(text), s->tick[i], kind);
        fprintf(f, "<span%s style=\"left:%.2f%%\">%s</span>",
                is_minor(s, i) ? " class=\"minor\"" : "", scale_at(s, s->tick[i]),
                text);
    }
    fputs("</div>\n", f);
}
