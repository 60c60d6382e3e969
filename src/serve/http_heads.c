/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lines of a head, looked at once more: libmicrohttpd 0.9 takes what other servers
 * read in another way (folded lines, bare LF, NUL, blanks before a colon, two lengths),
 * and requests that two programs read differently are how one is smuggled past a proxy.
 *
 * It reads in place: a name and its value stand where they came, and the next line
 * stands two bytes (CR LF) behind. Where a line lies anywhere else, something was in
 * between that is in neither.
 */
#include <string.h>
#include <strings.h>

#include "serve/http_parts.h"

struct look {
    const char *end; /* of the line before, where CR LF stood */
    const char *wrong;
    unsigned n_host, n_length, n_coding;
    bool http11;
};

static bool is_token(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr("!#$%&'*+-.^_`|~", s[i]) &&
            !((s[i] >= '0' && s[i] <= '9') ||
              ((s[i] | 32) >= 'a' && (s[i] | 32) <= 'z')))
            return false;
    return n > 0;
}

static bool has_control(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (((unsigned char)s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f)
            return true;
    return false;
}

/* Do NAME, blanks and VALUE stand behind each other, right behind the line before? */
static bool in_place(const struct look *l, const char *name, size_t n_name,
                     const char *value)
{
    const char *p = name + n_name + 1;

    if (name != l->end + 2 || value < p || value > p + HTTP_POOL_BYTES)
        return false;
    while (p < value && (*p == ' ' || *p == '\t'))
        p++;
    return p == value;
}

static enum MHD_Result look_at(void *user, enum MHD_ValueKind kind, const char *name,
                               size_t n_name, const char *value, size_t n)
{
    struct look *const l = user;

    (void)kind;
    if (!value || !is_token(name, n_name))
        l->wrong = "a header's name is malformed";
    else if (has_control(value, n))
        l->wrong = "a header's value holds a control character";
    else if (!in_place(l, name, n_name, value))
        l->wrong = "a header's line is folded, or does not end in CR LF";
    if (l->wrong)
        return MHD_NO;
    l->end = value + n;
    l->n_host += n_name == 4 && !strncasecmp(name, "host", 4);
    l->n_length += n_name == 14 && !strncasecmp(name, "content-length", 14);
    l->n_coding += n_name == 17 && !strncasecmp(name, "transfer-encoding", 17);
    return MHD_YES;
}

const char *heads_malformed(struct MHD_Connection *c, const char *method,
                            const char *target, const char *version)
{
    const union MHD_ConnectionInfo *const size =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    struct look l = {.end = version + strlen(version),
                     .http11 = !strcmp(version, "HTTP/1.1")};

    /* A NUL would end the target for us, and not for a proxy before us. */
    if (version != method + strlen(method) + 1 + strlen(target) + 1)
        return "the first line holds NUL, or more than one blank between its words";
    MHD_get_connection_values_n(c, MHD_HEADER_KIND, look_at, &l);
    if (l.wrong)
        return l.wrong;
    /* An empty name ends a head for libmicrohttpd: what follows would be a request. */
    if (!size || method + size->header_size != l.end + 4)
        return "the head does not end in an empty line";
    if (l.n_host > 1 || (l.http11 && !l.n_host))
        return "there must be one Host";
    if (l.n_length > 1)
        return "there are two Content-Length";
    if (l.n_length && l.n_coding)
        return "Content-Length and Transfer-Encoding exclude each other";
    if (l.n_coding > 1 || (l.n_coding && !l.http11))
        return "Transfer-Encoding may come once, and in HTTP/1.1";
    return NULL;
}

struct count {
    const char *name;
    size_t n;
};

static enum MHD_Result count_one(void *user, enum MHD_ValueKind kind, const char *name,
                                 const char *value)
{
    struct count *const c = user;

    (void)kind;
    (void)value;
    c->n += !strcasecmp(name, c->name);
    return MHD_YES;
}

size_t heads_count(struct MHD_Connection *c, const char *name)
{
    struct count count = {.name = name};

    MHD_get_connection_values(c, MHD_HEADER_KIND, count_one, &count);
    return count.n;
}
