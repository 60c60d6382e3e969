/* SPDX-License-Identifier: Apache-2.0 */
/*
 * artel serve MIXTURE: OpenAI's API and a web page over a mixture.
 */
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/report.h"
#include "cli/signals.h"

/* What the command line said. */
struct asked {
    struct words words, origins, names;
    const char *host, *keys, *admin_keys, *experts, *access_log, *below;
    uint64_t port, parallel, queue, context, max_connections, max_choices, max_tokens;
    size_t cache, max_body;
    double timeout, grace, threshold;
    bool no_page, strict;
    struct common common;
};

static void listening_options(struct options *o, struct asked *a)
{
    option_text(o, "host", &a->host, "ADDRESS",
                "to listen at; 127.0.0.1 where not given. Others can reach the server "
                "at any other address: give --keys then");
    option_whole(o, "port", &a->port, 0, 65535,
                 "8080 where not given; 0: any free one");
    option_text(o, "keys", &a->keys, "FILE",
                "with a key a line, of which every request must carry one "
                "(Authorization: Bearer KEY)");
    option_text(o, "admin-keys", &a->admin_keys, "FILE",
                "keys for calls that change what is served; without it none are taken");
    option_text(o, "experts-dir", &a->experts, "FOLDER",
                "below which adapters may be loaded by such calls");
    option_texts(
        o, "origin", &a->origins, "ORIGIN",
        "of browser pages that may call, such as https://chat.example; *: all; "
        "repeatable");
    option_texts(o, "name", &a->names, "NAME",
                 "that a request may give for this server in Host, beside localhost; "
                 "repeatable");
    option_text(o, "access-log", &a->access_log, "FILE",
                "a line of JSON for every request; - is standard output");
}

static void limit_options(struct options *o, struct asked *a)
{
    option_whole(o, "parallel", &a->parallel, 1, 32,
                 "answers at a time; 16 where not given");
    option_whole(o, "queue", &a->queue, 1, 100000,
                 "requests that wait, above which they are refused with 429");
    option_whole(o, "context", &a->context, 16, 10000000,
                 "tokens a conversation may have; the model's, at most 4096, where not "
                 "given");
    option_bytes(o, "cache", &a->cache,
                 "of keys and values of all conversations; 1G where not given");
    option_bytes(o, "max-body", &a->max_body, "of a request; 1M where not given");
    option_whole(o, "max-connections", &a->max_connections, 1, 100000,
                 "above which clients are refused with 503; 512 where not given");
    option_whole(o, "max-choices", &a->max_choices, 1, 128,
                 "n of a request; 16 where not given");
    option_whole(o, "max-tokens", &a->max_tokens, 1, 10000000,
                 "of an answer; what the context leaves where not given");
    option_real(
        o, "timeout", &a->timeout, 0, 1000000,
        "seconds for a request, with its time in the queue; 600 where not given, "
        "0: none");
    option_real(o, "grace", &a->grace, 0, 1000000,
                "seconds for answers under way once the server is asked to stop; 30 "
                "where not given");
}

static void answer_options(struct options *o, struct asked *a)
{
    option_real(o, "threshold", &a->threshold, 0, 1,
                "the routers' probability for the expert they chose, below which ...");
    option_text(o, "below", &a->below, "base|refused",
                "... the base answers, or the request is refused");
    option_flag(o, "no-page", &a->no_page, "without the web page at /");
    option_flag(o, "strict", &a->strict,
                "refuse requests with fields that are not known; else they are passed "
                "over and named in a header");
}

static void serve_options(struct options *o, struct asked *a)
{
    struct artel_serve_options d;

    artel_serve_options_default(&d);
    a->host = d.host;
    a->port = d.port;
    a->below = d.below;
    a->parallel = d.seats;
    a->queue = d.queue;
    a->cache = d.cache_bytes;
    a->max_body = d.max_body;
    a->max_connections = d.max_connections;
    a->max_choices = d.max_choices;
    a->timeout = d.request_seconds;
    a->grace = d.grace_seconds;
    listening_options(o, a);
    limit_options(o, a);
    answer_options(o, a);
    compute_options(o, &a->common);
}

static void tell_ready(void *user, const char *url)
{
    const struct asked *const a = user;
    const bool log_on_stdout = a->access_log && !strcmp(a->access_log, "-");

    fprintf(log_on_stdout ? stderr : stdout, "%s\n", url);
    fflush(log_on_stdout ? stderr : stdout);
}

static int serve(struct asked *a)
{
    struct artel_serve_options so;
    struct artel_error err = {0};

    signals_ignore_pipe();
    artel_serve_options_default(&so);
    so.host = a->host;
    so.port = (unsigned)a->port;
    so.keys = a->keys;
    so.admin_keys = a->admin_keys;
    so.experts = a->experts;
    so.origins = a->origins.at;
    so.n_origins = a->origins.n;
    so.hosts = a->names.at;
    so.n_hosts = a->names.n;
    so.access_log = a->access_log;
    so.seats = (size_t)a->parallel;
    so.queue = (size_t)a->queue;
    so.context = (size_t)a->context;
    so.cache_bytes = a->cache;
    so.max_body = a->max_body;
    so.max_connections = (size_t)a->max_connections;
    so.max_choices = (size_t)a->max_choices;
    so.max_tokens = (size_t)a->max_tokens;
    so.request_seconds = a->timeout;
    so.grace_seconds = a->grace;
    so.threshold = a->threshold;
    so.below = a->below;
    so.page = !a->no_page;
    so.strict = a->strict;
    so.open = common_open(&a->common);
    so.stopped = signals_counted();
    so.reopened = signals_reopen();
    so.on_ready = tell_ready;
    so.user = a;
    return artel_serve(a->words.at[0], &so, &err) < 0 ? report_error(&err) : 0;
}

int cmd_serve(int argc, char **argv)
{
    struct options o = {
        .command = "serve",
        .usage = "MIXTURE [--port N]",
        .about =
            "Serve MIXTURE (or an adapter, or a base alone) by OpenAI's API, and a "
            "page "
            "to talk to it. The URL is printed once requests are taken. As \"model\" a "
            "request names auto (the routers decide), an expert, or base. The first "
            "SIGINT or SIGTERM lets answers under way come to their end, the second "
            "stops at once, SIGUSR1 opens the access log anew. What each route takes "
            "and tells is in docs/SERVING.md.",
        .examples =
            "  artel serve runs/eight/moa\n"
            "  artel serve runs/eight/moa --port 9000 --keys keys.txt --host 0.0.0.0\n"
            "  curl -s localhost:8080/v1/chat/completions -H 'Content-Type: "
            "application/json' \\\n"
            "      -d '{\"model\": \"auto\", \"messages\": [{\"role\": \"user\", "
            "\"content\": \"Hi\"}]}'\n",
        .min_words = 1,
        .max_words = 1};
    static struct asked a;
    int rc = 0;

    serve_options(&o, &a);
    if (!options_parse(&o, argc, argv, &a.words, &rc))
        return rc;
    if (!strcmp(a.host, "") || (a.experts && !a.admin_keys))
        return usage_error("serve", *a.host ? "--experts-dir" : "--host", "USE06",
                           *a.host ? "needs --admin-keys: without them nobody may load"
                                   : "needs an address");
    rc = common_start(&a.common);
    return rc ? rc : serve(&a);
}
