/* SPDX-License-Identifier: Apache-2.0 */
/*
 * artel_serve(): the parts of this folder put together, and their orderly end.
 */
#include "artel.h"
#include "base/error.h"

void artel_serve_options_default(struct artel_serve_options *o)
{
    *o = (struct artel_serve_options){.host = "127.0.0.1",
                                      .port = 8080,
                                      .seats = 16,
                                      .queue = 256,
                                      .cache_bytes = (size_t)1 << 30,
                                      .max_body = (size_t)1 << 20,
                                      .max_connections = 512,
                                      .max_choices = 16,
                                      .request_seconds = 600,
                                      .grace_seconds = 30,
                                      .below = "base",
                                      .page = 1};
    artel_open_options_default(&o->open);
}

int artel_serve(const char *path, const struct artel_serve_options *o,
                struct artel_error *err)
{
    (void)path;
    (void)o;
    return error_set(err, ARTEL_ELIMIT, "SRV00", NULL,
                     "this library was built without a server");
}
