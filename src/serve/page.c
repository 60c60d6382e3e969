/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page's files, as the build put them into the library.
 *
 * They change with the program only, so a browser keeps them and asks whether they are
 * still the same: the ETag is their digest. What a model wrote is shown as text by page.js;
 * should it ever slip through, the policy lets no script run that is not of these files and
 * nothing be fetched from elsewhere.
 */
#include "serve/page.h"

#include <stdio.h>
#include <string.h>

#include "files/digest.h"
#include "serve/api.h"

/* Of eval/: the report's colours. */
extern const char palette_css[], palette_dark_css[];
extern const char page_html[], page_css[], page_icon_svg[];
extern const char page_answer_js[], page_chat_js[], page_compare_js[], page_dom_js[],
    page_main_js[], page_markdown_js[], page_mixture_js[], page_route_js[],
    page_server_js[], page_store_js[], page_theme_js[];

#define CSS "text/css; charset=utf-8"
#define JS  "text/javascript; charset=utf-8"

static const struct asset {
    const char *path, *type, *text;
} assets[] = {
    {"/", "text/html; charset=utf-8", page_html},
    {"/page/icon.svg", "image/svg+xml", page_icon_svg},
    {"/page/palette.css", CSS, palette_css},
    {"/page/palette_dark.css", CSS, palette_dark_css},
    {"/page/page.css", CSS, page_css},
    {"/page/theme.js", JS, page_theme_js},
    {"/page/main.js", JS, page_main_js},
    {"/page/answer.js", JS, page_answer_js},
    {"/page/chat.js", JS, page_chat_js},
    {"/page/compare.js", JS, page_compare_js},
    {"/page/dom.js", JS, page_dom_js},
    {"/page/markdown.js", JS, page_markdown_js},
    {"/page/mixture.js", JS, page_mixture_js},
    {"/page/route.js", JS, page_route_js},
    {"/page/server.js", JS, page_server_js},
    {"/page/store.js", JS, page_store_js},
};

static const char *const headers[][2] = {
    {"Content-Security-Policy",
     "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
     "object-src 'none'"},
    {"Referrer-Policy", "no-referrer"},
    {"Cache-Control", "no-cache"}, /* kept, but asked about each time */
};

static const struct asset *asset_at(const char *path)
{
    for (size_t i = 0; i < sizeof(assets) / sizeof(assets[0]); i++)
        if (strcmp(assets[i].path, path) == 0)
            return &assets[i];
    return NULL;
}

/* Does IF_NONE_MATCH (may be NULL), a list of tags or "*", name ETAG? A proxy that
 * compressed the reply has put W/ before it. */
static bool still_the_same(const char *if_none_match, const char *etag)
{
    return if_none_match &&
           (strcmp(if_none_match, "*") == 0 || strstr(if_none_match, etag));
}

void page_serve(void *user, struct exchange *x)
{
    const struct api *const api = user;
    const struct asset *const asset = asset_at(exchange_path(x));
    char digest[DIGEST_SIZE], etag[DIGEST_SIZE + 2];
    size_t n;

    if (!api->page || !asset) {
        exchange_error(x, 404, "invalid_request_error", NULL, "not_found",
                       "there is nothing at this address");
        return;
    }
    n = strlen(asset->text);
    digest_bytes(digest, asset->text, n);
    snprintf(etag, sizeof(etag), "\"%.32s\"", digest);
    exchange_set_header(x, "ETag", etag);
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++)
        exchange_set_header(x, headers[i][0], headers[i][1]);
    if (still_the_same(exchange_header(x, "If-None-Match"), etag))
        exchange_reply(x, 304, asset->type, "", 0);
    else
        exchange_reply(x, 200, asset->type, asset->text, n);
}
