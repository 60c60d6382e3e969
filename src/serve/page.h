/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The web page: a few files that the build puts into the library, page.html and what it
 * asks for below /page/, and nothing from elsewhere. It talks to /v1/models, /v1/chat/completions and
 * /artel/mixture of its own server. The page itself is open to all; where the server asks
 * for a key, so does the page.
 */
#ifndef ARTEL_SERVE_PAGE_H
#define ARTEL_SERVE_PAGE_H

#include "serve/http.h"

/* Handler of GET / and GET /page/, both HTTP_OPEN; USER is the struct api, of which it
 * reads PAGE. A path that is none of the files is 404. */
void page_serve(void *user, struct exchange *x);

#endif
