/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What filters and methods of strings share.
 */
#ifndef ARTEL_TEXT_JINJA_TEXT_H
#define ARTEL_TEXT_JINJA_TEXT_H

#include "text/jinja_run.h"

/* CASE_TITLE is str.title(), CASE_WORDS the filter: they part words differently. */
enum text_case { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_WORDS, CASE_CAPITAL };

/* Without the characters of SET (NULL: white space) at its ends. */
struct str text_strip(const struct str *s, const struct str *set, bool left,
                      bool right);
struct value text_case(struct run *r, const struct str *s, enum text_case how);
/* COUNT < 0: all. */
struct value text_replace(struct run *r, const struct str *s, const struct str *old,
                          const struct str *with, int64_t count);
/* V must be a string; WHAT asks for it. */
const struct str *need_str(struct run *r, const struct value *v, const char *what);
struct value dict_items(struct run *r, const struct dict *d); /* list of (key, value) */

#endif
