/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every kind of stage there is, and which of them a method consists of. A new method is
 * a list here and a preset in experts/methods.c; what a row's fields mean is told where
 * struct stage_row is (stages.h).
 *
 *     expert-DOMAIN             --> single, arrow, ridge-router, classifier-router, moa-router, modula-flan-router
 *     universal                 --> modula-flan-router
 *     universal, flan-DOMAIN    --> modula-flan-router   (universal.keep)
 *     universal, res-DOMAIN     --> modula-res-router
 */
#include <string.h>

#include "plan/stages.h"

static const struct stage_row expert = {.name = "expert-",
                                        .kind = STAGE_EXPERT,
                                        .text = TEXT_OWN,
                                        .start = START_OWN,
                                        .experts = "experts",
                                        .moves = MOVES_EXPERTS};

static const struct stage_row universal = {.name = UNIVERSAL_NAME,
                                           .kind = STAGE_EXPERT,
                                           .text = TEXT_UNIVERSAL,
                                           .start = START_OWN,
                                           .experts = "experts",
                                           .moves = MOVES_EXPERTS};

static const struct stage_row single = {.name = "single",
                                        .kind = STAGE_BUNDLE,
                                        .method = "single",
                                        .text = TEXT_DOMAINS,
                                        .start = START_READ,
                                        .experts = "experts"};

static const struct stage_row mixed = {.name = "mixed",
                                       .kind = STAGE_MIXTURE,
                                       .method = "mixed",
                                       .text = TEXT_DOMAINS,
                                       .start = START_MIXED,
                                       .moves = MOVES_EXPERTS,
                                       .mix = BATCH_EACH};

static const struct stage_row moa_router = {.name = "moa-router",
                                            .kind = STAGE_MIXTURE,
                                            .method = "moa",
                                            .text = TEXT_DOMAINS,
                                            .start = START_INIT,
                                            .experts = "experts",
                                            .moves = MOVES_AS_ASKED,
                                            .lesson = LESSON_LABELS,
                                            .mix = BATCH_EVEN};

static const struct stage_row molora = {.name = "molora",
                                        .kind = STAGE_MIXTURE,
                                        .method = "molora",
                                        .text = TEXT_ALL,
                                        .start = START_POOL,
                                        .moves = MOVES_BOTH,
                                        .lesson = LESSON_ANSWERS,
                                        .mix = BATCH_EACH};

static const struct stage_row slim = {.name = "slim",
                                      .kind = STAGE_MIXTURE,
                                      .method = "slim",
                                      .text = TEXT_ALL,
                                      .start = START_POOL,
                                      .moves = MOVES_BOTH,
                                      .lesson = LESSON_ANSWERS,
                                      .mix = BATCH_EACH};

static const struct stage_row mixlora = {.name = "mixlora",
                                         .kind = STAGE_MIXTURE,
                                         .method = "mixlora",
                                         .text = TEXT_ALL,
                                         .start = START_POOL,
                                         .domain_kind = EXPERT_FFN,
                                         .moves = MOVES_BOTH,
                                         .lesson = LESSON_ANSWERS,
                                         .mix = BATCH_EACH};

static const struct stage_row flan_router = {.name = "modula-flan-router",
                                             .kind = STAGE_MIXTURE,
                                             .method = "modula-flan",
                                             .text = TEXT_ALL,
                                             .start = START_READ,
                                             .experts = "experts",
                                             .universal = true,
                                             .moves = MOVES_ROUTERS,
                                             .lesson = LESSON_ANSWERS,
                                             .mix = BATCH_EVEN};

static const struct stage_row flan_expert = {.name = "flan-",
                                             .kind = STAGE_EXPERT,
                                             .text = TEXT_OWN,
                                             .start = START_OWN,
                                             .experts = "experts-flan",
                                             .universal = true,
                                             .moves = MOVES_EXPERTS};

static const struct stage_row kept_flan_router = {.name = "modula-flan-router",
                                                  .kind = STAGE_MIXTURE,
                                                  .method = "modula-flan",
                                                  .text = TEXT_ALL,
                                                  .start = START_READ,
                                                  .experts = "experts-flan",
                                                  .universal = true,
                                                  .moves = MOVES_ROUTERS,
                                                  .lesson = LESSON_ANSWERS,
                                                  .mix = BATCH_EVEN};

static const struct stage_row res_expert = {.name = "res-",
                                            .kind = STAGE_EXPERT,
                                            .text = TEXT_OWN,
                                            .start = START_OWN,
                                            .experts = "experts-res",
                                            .domain_kind = EXPERT_RES,
                                            .universal = true,
                                            .moves = MOVES_EXPERTS};

static const struct stage_row res_router = {.name = "modula-res-router",
                                            .kind = STAGE_MIXTURE,
                                            .method = "modula-res",
                                            .text = TEXT_ALL,
                                            .start = START_READ,
                                            .experts = "experts-res",
                                            .domain_kind = EXPERT_RES,
                                            .universal = true,
                                            .moves = MOVES_ROUTERS,
                                            .lesson = LESSON_ANSWERS,
                                            .mix = BATCH_EVEN};

static const struct stage_row arrow = {.name = "arrow",
                                       .kind = STAGE_BUNDLE,
                                       .method = "arrow",
                                       .text = TEXT_DOMAINS,
                                       .start = START_READ,
                                       .experts = "experts",
                                       .lesson = LESSON_NONE};

static const struct stage_row ridge = {.name = "ridge-router",
                                       .kind = STAGE_SOLVED,
                                       .method = "ridge",
                                       .text = TEXT_DOMAINS,
                                       .start = START_READ,
                                       .experts = "experts",
                                       .moves = MOVES_ROUTERS,
                                       .lesson = LESSON_RIDGE};

static const struct stage_row classifier = {.name = "classifier-router",
                                            .kind = STAGE_SOLVED,
                                            .method = "classifier",
                                            .text = TEXT_DOMAINS,
                                            .start = START_READ,
                                            .experts = "experts",
                                            .moves = MOVES_ROUTERS,
                                            .lesson = LESSON_CLASSIFIER};

/* KEPT: where the recipe says universal.keep. The first that fits is taken. */
static const struct {
    const char *method;
    bool kept;
    const struct stage_row *rows[METHOD_ROWS + 1];
} methods[] = {
    {"single", false, {&expert, &single}},
    {"mixed", false, {&mixed}},
    {"moa", false, {&expert, &moa_router}},
    {"molora", false, {&molora}},
    {"mixlora", false, {&mixlora}},
    {"modula-flan", true, {&universal, &flan_expert, &kept_flan_router}},
    {"modula-flan", false, {&universal, &expert, &flan_router}},
    {"modula-res", false, {&universal, &res_expert, &res_router}},
    {"arrow", false, {&expert, &arrow}},
    {"slim", false, {&slim}},
    {"ridge", false, {&expert, &ridge}},
    {"classifier", false, {&expert, &classifier}},
};

const struct stage_row *method_row(const char *method, const struct recipe *r, size_t i)
{
    const bool kept = r->universal && r->universal->keep;

    for (size_t m = 0; m < sizeof(methods) / sizeof(methods[0]); m++)
        if (!strcmp(methods[m].method, method) && (kept || !methods[m].kept))
            return methods[m].rows[i];
    return NULL; /* "base" */
}

bool row_feeds(const struct stage_row *from, const struct stage_row *to)
{
    if (from->text == TEXT_UNIVERSAL)
        return to->universal;
    return from->text == TEXT_OWN &&
           (to->start == START_READ || to->start == START_INIT) &&
           !strcmp(from->experts, to->experts);
}
