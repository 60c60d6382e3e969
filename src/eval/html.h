/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pieces of a page. Text from outside goes through html_text() alone: there is no other
 * way for it into the page.
 */
#ifndef ARTEL_EVAL_HTML_H
#define ARTEL_EVAL_HTML_H

#include <stdio.h>

#include "eval/scale.h"

/* Escaped for content and for quoted attributes; control bytes become U+FFFD. */
void html_text(FILE *f, const char *text);
/* The same, apart from the direction of the text around it. */
void html_name(FILE *f, const char *text);

/* The mark of method IDX: a colour and a shape. TITLE (escaped here) may be NULL; STYLE
 * is ours: "left:3%", or NULL. */
void html_mark(FILE *f, size_t idx, const char *style, const char *title);

enum number_kind {
    NUMBER_PLAIN,  /* four digits */
    NUMBER_SHARE,  /* 0.5 is 50.0 % */
    NUMBER_CHANGE, /* of shares, in points with a sign */
    NUMBER_SIGNED, /* four digits and a sign */
    NUMBER_COUNT   /* whole, thousands apart */
};
/* "–" for NaN. Returns OUT. */
const char *number_text(char *out, size_t size, double v, enum number_kind kind);
/* A cell of it; CLASSES is ours and may be NULL. */
void html_cell(FILE *f, double v, enum number_kind kind, const char *classes);

/* A table in a box of its own that scrolls; ID is ours and unique in the page. The
 * caption is what the caller writes between the two. */
void html_table_begin(FILE *f, const char *id);
void html_caption_end(FILE *f);
void html_table_end(FILE *f);

/* Lines of a track's ticks, and its axis with their numbers. */
void html_ticks(FILE *f, const struct scale *s);
void html_axis(FILE *f, const struct scale *s, enum number_kind kind);

#endif
