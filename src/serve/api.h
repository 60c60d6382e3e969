/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The routes: OpenAI's API with the mixture's routing in it, experts at run time, health,
 * metrics, and the page. docs/SERVING.md describes each for its user.
 *
 *     POST /v1/chat/completions  /v1/completions  /v1/embeddings
 *     GET  /v1/models  /v1/models/NAME
 *     POST /tokenize  /detokenize
 *     GET  /health  /metrics  /artel/mixture  /  /page/...
 *     POST /v1/experts  /v1/reload   DELETE /v1/experts/NAME      (admin)
 *          /v1/load_lora_adapter  /v1/unload_lora_adapter     (as vLLM has them)
 *
 * "artel" of an answer, in a stream of its first chunk with text and of its last:
 *
 *     expert           its name, or "base"
 *     probabilities    {NAME: mean over the routers}, null where none was asked
 *     selector         "last", "vote" or null
 *     routers          how many there are, and
 *     layers_agreeing  how many of them chose it; null where that says nothing
 *     below            true where the threshold sent it to the base
 *     experts, layers  where the request has "artel": {"layers": true}: [NAME] and
 *                      [[probability of each] of each router], null where none was asked
 */
#ifndef ARTEL_SERVE_API_H
#define ARTEL_SERVE_API_H

#include <stdatomic.h>

#include "serve/catalogue.h"
#include "serve/engine.h"
#include "serve/grammar.h"
#include "serve/http.h"

struct api_counts;
struct api_loads;

/* What every handler gets as USER. */
struct api {
    struct engine *engine;
    struct catalogue *catalogue;
    struct grammar_pieces *pieces;
    _Atomic(struct http *) http; /* for its numbers; NULL until it is open */
    size_t max_choices;          /* n of one request, 16 */
    size_t max_tokens;           /* of an answer; 0: what the context leaves */
    double request_seconds;      /* deadline of a request; 0: none */
    float threshold;             /* where a request names none; 0: none */
    enum job_below below;
    bool strict;               /* unknown fields are refused; else listed in a header */
    bool page;                 /* the web page is there */
    atomic_bool draining;      /* no more requests are taken */
    double started;            /* monotonic */
    struct api_counts *counts; /* requests by expert, histograms; by api_open() */
    struct api_loads *loads;   /* calls that load, each on a thread; by api_open() */
};

/* The fields above are set; counts and loads are made. */
int api_open(struct api *a, struct artel_error *err);
/* Waits for calls that load, which still use engine, catalogue and http; of answers under
 * way, which use the engine, it needs nothing. After http_hush(), before engine_close(). */
void api_close(struct api *a);

extern const struct http_route api_routes[];
extern const size_t n_api_routes;

#endif
