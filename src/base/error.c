/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of an error message, and text from outside made safe to print.
 */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ESCAPE_MAX 128

int error_set(struct artel_error *err, int rc, const char *code, const char *where,
              const char *fmt, ...)
{
    va_list args;

    if (!err)
        return rc;
    memset(err, 0, sizeof(*err));
    err->exit = -rc;
    snprintf(err->code, sizeof(err->code), "%s", code);
    snprintf(err->where, sizeof(err->where), "%s", where ? where : "");
    va_start(args, fmt);
    vsnprintf(err->reason, sizeof(err->reason), fmt, args);
    va_end(args);
    return rc;
}

int error_in(struct artel_error *err, int rc, const char *file)
{
    if (err && !err->file[0])
        escape_text(err->file, sizeof(err->file), file, strlen(file));
    return rc;
}

int error_nomem(struct artel_error *err, size_t bytes)
{
    return error_set(err, ARTEL_ELIMIT, "MEM01", NULL,
                     "not enough memory: %zu bytes could not be had", bytes);
}

int error_errno(struct artel_error *err, const char *file, const char *doing)
{
    const int number = errno;
    const int rc = number == ENOMEM || number == EMFILE || number == ENFILE
                       ? ARTEL_ELIMIT
                       : ARTEL_EIO;

    error_set(err, rc, "IO01", NULL, "%s: %s", doing, strerror(number));
    return error_in(err, rc, file);
}

/* Length of the valid UTF-8 sequence at S (N bytes left), or 0. */
static size_t utf8_length(const unsigned char *s, size_t n)
{
    size_t len;

    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xc2 && s[0] <= 0xdf)
        len = 2;
    else if ((s[0] & 0xf0) == 0xe0)
        len = 3;
    else if (s[0] >= 0xf0 && s[0] <= 0xf4)
        len = 4;
    else
        return 0;
    if (len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return len;
}

/* Marks that turn the direction of text, and the C1 controls, are escaped too. */
static int utf8_is_control(const unsigned char *s, size_t len)
{
    if (len == 1)
        return s[0] < 0x20 || s[0] == 0x7f;
    if (len == 2)
        return s[0] == 0xc2 && s[1] < 0xa0;
    return len == 3 && s[0] == 0xe2 &&
           ((s[1] == 0x80 && s[2] >= 0x8e && s[2] <= 0xaf) ||
            (s[1] == 0x81 && s[2] >= 0xa6));
}

const char *escape_text(char *out, size_t size, const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t used = 0;
    const size_t end = n < ESCAPE_MAX ? n : ESCAPE_MAX;

    if (!size)
        return out;
    for (size_t i = 0; i < end;) {
        const size_t len = utf8_length(s + i, n - i);

        if (len && !utf8_is_control(s + i, len)) {
            if (used + len + 1 > size)
                break;
            memcpy(out + used, s + i, len);
            used += len;
            i += len;
            continue;
        }
        if (used + 5 > size)
            break;
        used += (size_t)snprintf(out + used, size - used, "\\x%02X", s[i]);
        i++;
    }
    out[used] = '\0';
    return out;
}
