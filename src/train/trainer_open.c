/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Laying a trainer out: gradients and moments of what is trained in one arena,
 * one decoder pass a thread, and the state that a checkpoint holds.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/error.h"
#include "decoder/staged.h"
#include "experts/fold.h"
#include "experts/stack.h"
#include "train/trainer_parts.h"

void train_options_default(struct train_options *o)
{
    *o = (struct train_options){
        .learning_rate = 2e-4f,
        .router_learning_rate = 1e-2f,
        .beta1 = 0.9f,
        .beta2 = 0.999f,
        .eps = 1e-8f,
        .max_grad_norm = 1.0f,
        .schedule = {.kind = SCHEDULE_CONSTANT},
        .seed = 1,
        .routing = ROUTE_GIVEN,
        .forced_expert = -1,
        .eta = 0.0f,
        .lm_loss = true,
        .max_row_tokens = 512,
        .block_rows = 256,
    };
}

static size_t lowest_layer(const struct mixture *m, const bool *trained,
                           bool train_routers)
{
    size_t first = m->n_layers;

    if (train_routers)
        return 0;
    for (size_t e = 0; e < m->n_experts; e++) {
        const size_t own = trained[e] ? expert_first_layer(&m->experts[e]) : first;

        first = own < first ? own : first;
    }
    return first;
}

static struct pass_options pass_options_of(const struct artel_model *model,
                                           const struct mixture *m, const bool *trained,
                                           bool train_routers,
                                           const struct train_options *o)
{
    struct pass_options p = {
        .routing = o->routing,
        .backward = o->lm_loss,
        .recompute = o->memory >= MEMORY_RECOMPUTE && o->lm_loss,
        .staged = model->use & MATRIX_STAGED,
        .straight = o->straight,
        .detach_router = o->detach_router,
        .want_probs = m->n_routers > 0,
        .dropout_seed = o->seed,
        .first_layer = lowest_layer(m, trained, train_routers),
    };

    for (size_t e = 0; e < m->n_experts; e++)
        p.dropout |= trained[e] && m->experts[e].dropout > 0.0f;
    p.max_rows = o->max_row_tokens > o->block_rows ? o->max_row_tokens : o->block_rows;
    p.max_seqs = p.max_rows;
    return p;
}

/* Its own, or what it hands on to the universal expert. */
static bool has_gradient(const struct mixture *m, const bool *trained, size_t e)
{
    return trained[e] || (m->experts[e].kind == EXPERT_RES && trained[0]);
}

/* SUMS: those of the step, which all threads add to; NULL: G has its own. */
static void grads_carve(struct mixture_grads *g, struct arena *a,
                        const struct mixture *m, const bool *trained,
                        bool train_routers, const struct mixture_grads *sums)
{
    g->n_experts = m->n_experts;
    g->expert = arena_take(a, m->n_experts * sizeof(*g->expert));
    g->touched = arena_take(a, m->n_experts * sizeof(*g->touched));
    for (size_t e = 0; e < m->n_experts; e++) {
        const bool takes = has_gradient(m, trained, e) && !sums;
        float *d = takes ? arena_f32(a, m->experts[e].n_grads) : NULL;

        if (g->expert)
            g->expert[e] = sums ? sums->expert[e] : d;
    }
    g->routers = train_routers ? arena_f32(a, m->n_router_params) : NULL;
    g->router_sums = sums ? sums->routers : NULL;
}

static void group_carve(struct artel_trainer *t, struct arena *a, const char *name,
                        float *p, float *g, size_t n, float rate)
{
    const size_t i = t->n_groups++;
    float *m = arena_f32(a, n), *v = arena_f32(a, n);

    if (t->groups)
        t->groups[i] = (struct adamw_group){.name = name,
                                            .p = p,
                                            .g = g,
                                            .m = m,
                                            .v = v,
                                            .n = n,
                                            .steps = &t->adam_steps[i],
                                            .rate = rate};
}

/* A trained expert's group. */
static void expert_carve(struct artel_trainer *t, struct arena *a, size_t e)
{
    const struct expert *x = &t->mixture->experts[e];
    float *own = x->kind == EXPERT_RES ? arena_f32(a, x->n_params) : NULL;

    if (t->own)
        t->own[e] = own;
    group_carve(t, a, x->name, t->mixture->bare ? t->mixture->bare[e] : x->params,
                own             ? own
                : t->sum.expert ? t->sum.expert[e]
                                : NULL,
                x->n_params, t->options.learning_rate);
}

static void carve(struct artel_trainer *t, struct arena *a, const bool *trained)
{
    const struct mixture *m = t->mixture;

    t->n_groups = 0;
    t->groups = arena_take(a, (m->n_experts + 1) * sizeof(*t->groups));
    t->adam_steps = arena_f32(a, m->n_experts + 1);
    grads_carve(&t->sum, a, m, trained, t->train_routers, NULL);
    t->part = arena_take(a, t->n_threads * sizeof(*t->part));
    for (size_t i = 0; i < t->n_threads; i++) {
        struct mixture_grads part = {0};

        if (t->options.lm_loss)
            grads_carve(&part, a, m, trained, t->train_routers,
                        t->relayed ? &t->sum : NULL);
        part.relay = t->relayed ? &t->relay : NULL;
        if (t->part)
            t->part[i] = part;
    }
    t->own = arena_take(a, m->n_experts * sizeof(*t->own));
    for (size_t e = 0; e < m->n_experts; e++)
        if (trained[e])
            expert_carve(t, a, e);
    if (t->train_routers)
        group_carve(t, a, "(routers)", m->router_params, t->sum.routers,
                    m->n_router_params, t->options.router_learning_rate);
    if (!t->options.lm_loss && m->n_routers)
        cache_carve(&t->cache, a, m->n_routers, m->routers[0].dim,
                    t->options.cache_rows);
    t->pass = arena_take(a, t->n_threads * sizeof(*t->pass));
    t->stage_room = arena_take(a, t->n_threads * sizeof(*t->stage_room));
    for (size_t i = 0; t->staged && i < t->n_threads; i++) {
        void *room = arena_take(a, stage_room(t->model));

        if (t->stage_room)
            t->stage_room[i] = room;
    }
}

static void describe(struct artel_trainer *t, const struct artel_model *model,
                     struct mixture *mixture, const bool *trained, bool train_routers,
                     const struct train_options *o)
{
    *t = (struct artel_trainer){.model = model,
                                .mixture = mixture,
                                .options = *o,
                                .loss_limit = HUGE_VAL,
                                .train_routers = train_routers,
                                .n_threads = cpu_threads(),
                                .staged = model->use & MATRIX_STAGED,
                                .relayed = model->has_tiles && o->lm_loss,
                                .learns_clusters = train_routers && o->lm_loss &&
                                                   mixture->cluster_state};
    t->pass_options = pass_options_of(model, mixture, trained, train_routers, o);
    t->adamw = (struct adamw){.beta1 = o->beta1,
                              .beta2 = o->beta2,
                              .eps = o->eps,
                              .decay = o->weight_decay,
                              .max_norm = o->max_grad_norm};
}

size_t trainer_bytes(const struct artel_model *model, const struct mixture *mixture,
                     const bool *trained, bool train_routers,
                     const struct train_options *o)
{
    struct mixture shallow = *mixture; /* only measured, never written */
    struct artel_trainer t;
    struct arena measure = {0};

    describe(&t, model, &shallow, trained, train_routers, o);
    carve(&t, &measure, trained);
    if (model->has_tiles && !mixture->stack)
        measure.used += expert_stack_bytes(mixture, &model->tiles.shape, o->lm_loss);
    if (t.staged)
        measure.used += wave_bytes(model, mixture, &t.pass_options, o);
    for (size_t e = 0; mixture->rule.masks.drop > 0.0f && e < mixture->n_experts; e++)
        measure.used += mixture->experts[e].n_params * sizeof(float);
    return measure.used + t.n_threads * pass_bytes(model, mixture, &t.pass_options);
}

/* Names are made once, in the order of the groups: params, m, v. */
static int make_names(struct artel_trainer *t, struct artel_error *err)
{
    static const char *const part[] = {"params", "m", "v"};

    t->state_names = calloc(t->n_groups * 3 + 1, sizeof(*t->state_names));
    if (!t->state_names)
        return error_nomem(err, t->n_groups * 3 * sizeof(*t->state_names));
    for (size_t g = 0; g < t->n_groups; g++)
        for (size_t k = 0; k < 3; k++) {
            const bool expert = t->groups[g].name[0] != '(';

            snprintf(t->state_names[g * 3 + k], sizeof(t->state_names[0]), "%s%s.%s",
                     expert ? "expert." : "router", expert ? t->groups[g].name : "",
                     part[k]);
        }
    return 0;
}

int trainer_open(struct artel_trainer **out, const struct artel_model *model,
                 struct mixture *mixture, const bool *trained, bool train_routers,
                 const struct train_options *o, struct artel_error *err)
{
    struct artel_trainer *t = malloc(sizeof(*t));
    struct arena measure = {0};
    int rc;

    *out = NULL;
    if (!t)
        return error_nomem(err, sizeof(*t));
    rc = mixture_wear(mixture, &model->weights->config, 0, err);
    if (rc < 0) {
        free(t);
        return rc;
    }
    describe(t, model, mixture, trained, train_routers, o);
    carve(t, &measure, trained);
    rc = arena_init(&t->arena, measure.used, err);
    if (rc < 0) {
        mixture_bare(mixture);
        free(t);
        return rc;
    }
    mixture_hold(mixture);
    carve(t, &t->arena, trained);
    if (relay_init(&t->relay)) {
        mixture_let_go(mixture);
        mixture_bare(mixture);
        arena_release(&t->arena);
        free(t);
        return error_nomem(err, sizeof(t->relay));
    }
    rc = make_names(t, err);
    for (size_t i = 0; rc == 0 && i < t->n_threads; i++)
        rc = pass_open(&t->pass[i], model, mixture, &t->pass_options, err);
    if (rc == 0 && t->staged)
        rc = arena_init(&t->wave, wave_bytes(model, mixture, &t->pass_options, o), err);
    if (rc < 0) {
        trainer_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

void trainer_close(struct artel_trainer *t)
{
    if (!t)
        return;
    for (size_t i = 0; t->pass && i < t->n_threads; i++)
        pass_close(t->pass[i]);
    mixture_let_go(t->mixture);
    free(t->state_names);
    free(t->seqs);
    free(t->blocks);
    free(t->items);
    free(t->fresh);
    free(t->z);
    free(t->fresh_z);
    free(t->spill);
    relay_destroy(&t->relay);
    free(t->seen);
    free(t->saw);
    trainer_wear(t, MASK_INFERENCE);
    arena_release(&t->wave);
    arena_release(&t->arena);
    free(t);
}

size_t trainer_state(const struct artel_trainer *t, struct tensor *out)
{
    for (size_t g = 0; out && g < t->n_groups; g++) {
        const struct adamw_group *group = &t->groups[g];
        float *const data[] = {group->p, group->m, group->v};

        for (size_t k = 0; k < 3; k++)
            out[g * 3 + k] =
                tensor_floats(t->state_names[g * 3 + k], data[k], group->n);
    }
    size_t n = t->n_groups * 3;

    if (out)
        out[n] = tensor_floats("adamw.steps", t->adam_steps, t->n_groups);
    n++;
    if (out && t->learns_clusters)
        out[n] = tensor_floats("router.clusters", t->mixture->cluster_state,
                               t->mixture->n_routers *
                                   mixture_cluster_floats(t->mixture, 0));
    return n + t->learns_clusters;
}

int trainer_restore(struct artel_trainer *t, const struct tensor *tensors, size_t n,
                    uint64_t step, struct artel_error *err)
{
    const size_t want = trainer_state(t, NULL);
    struct tensor *own = calloc(want, sizeof(*own));
    int rc = 0;

    if (!own)
        return error_nomem(err, want * sizeof(*own));
    trainer_state(t, own);
    for (size_t i = 0; rc == 0 && i < want; i++) {
        const struct tensor *found = NULL;

        for (size_t k = 0; k < n && !found; k++)
            if (!strcmp(tensors[k].name, own[i].name))
                found = &tensors[k];
        if (!found || found->dtype != DTYPE_F32 || found->bytes != own[i].bytes)
            rc = error_set(err, ARTEL_EFORMAT, "CKP20", own[i].name,
                           "the checkpoint has %zu bytes of it, this run needs %zu",
                           found ? found->bytes : 0, own[i].bytes);
        else
            memcpy((void *)(size_t)own[i].data, found->data, found->bytes);
    }
    free(own);
    if (rc == 0) {
        t->step = step;
        trainer_renew(t, NULL);
    }
    return rc;
}
