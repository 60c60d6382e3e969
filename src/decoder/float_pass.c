/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Laying out what the operations in float need.
 */
#include "decoder/float_pass.h"

static struct float_acts acts_carve(struct arena *a, const struct decoder_pass *p)
{
    const struct model_config *c = &p->model->weights->config;
    const size_t T = p->options.max_rows;
    const size_t kept =
        p->mixture && p->options.backward ? apply_kept_floats(p->mixture, T) : 0;
    const size_t heads = c->n_heads * c->head_dim, groups = c->n_kv_heads * c->head_dim;
    struct float_acts l;

    l.inv_rms_attn = arena_f32(a, T);
    l.q = arena_f32(a, T * heads);
    l.k = arena_f32(a, T * groups);
    l.v = arena_f32(a, T * groups);
    l.attn = arena_f32(a, T * heads);
    l.lse = arena_f32(a, T * c->n_heads);
    l.x_mid = arena_f32(a, T * c->dim);
    l.inv_rms_ffn = arena_f32(a, T);
    l.gate = arena_f32(a, T * c->ffn_dim);
    l.up = arena_f32(a, T * c->ffn_dim);
    for (size_t s = 0; s < N_SITES; s++)
        l.h[s] = kept && !(s == SITE_DOWN && p->options.recompute)
                     ? arena_f32(a, kept)
                     : NULL; /* a forward run anew stops before down */
    return l;
}

static void experts_carve(struct float_pass *f, struct arena *a,
                          const struct decoder_pass *p)
{
    const struct mixture *m = p->mixture;
    const struct model_config *c = &p->model->weights->config;
    const struct pass_options *o = &p->options;
    size_t widest = c->dim, units;

    if (!m)
        return;
    apply_scratch_carve(&f->apply, a, m, c, o->max_rows);
    for (size_t r = 0; r < m->n_routers; r++)
        widest = m->routers[r].dim > widest ? m->routers[r].dim : widest;
    units = m->rule.decides == DECIDE_SEQUENCE ? o->max_seqs : o->max_rows;
    if (m->rule.whole_ffn) {
        ffn_scratch_carve(&f->whole_ffn, a, m, c, o->max_rows, o->backward);
        f->ffn_out = arena_f32(a, o->max_rows * c->dim);
    }
    if (o->backward)
        f->router_scratch = arena_f32(a, units * (m->n_experts + widest));
}

static void backward_carve(struct float_pass *f, struct arena *a,
                           const struct model_config *c, size_t T)
{
    const size_t heads = c->n_heads * c->head_dim, groups = c->n_kv_heads * c->head_dim;

    f->d_xn = arena_f32(a, T * c->dim);
    f->d_q = arena_f32(a, T * heads);
    f->d_k = arena_f32(a, T * groups);
    f->d_v = arena_f32(a, T * groups);
    f->d_attn = arena_f32(a, T * heads);
    f->d_act = arena_f32(a, T * c->ffn_dim);
    f->d_gate = arena_f32(a, T * c->ffn_dim);
    f->d_up = arena_f32(a, T * c->ffn_dim);
}

static void head_carve(struct float_pass *f, struct arena *a,
                       const struct model_config *c, size_t chunk, bool backward)
{
    f->head_rows = arena_take(a, chunk * sizeof(*f->head_rows));
    f->logits = arena_f32(a, chunk * FLOAT_HEAD_COLS);
    f->head_xn = arena_f32(a, chunk * c->dim);
    f->head_inv = arena_f32(a, chunk);
    if (backward)
        f->head_mix = arena_f32(a, chunk * c->dim);
}

static void carve(struct decoder_pass *p, struct arena *a)
{
    const struct model_config *c = &p->model->weights->config;
    const size_t T = p->options.max_rows;
    const size_t widest = c->ffn_dim > c->dim ? c->ffn_dim : c->dim;
    const size_t n_acts = p->one_layer ? 1 : c->n_layers;
    struct float_pass *room = arena_take(a, sizeof(*room)), f = {0};

    f.heads = (struct attention_shape){c->n_heads, c->n_kv_heads, c->head_dim};
    f.acts = arena_take(a, n_acts * sizeof(*f.acts));
    for (size_t l = 0; l < n_acts; l++) {
        const struct float_acts acts = acts_carve(a, p);

        if (f.acts)
            f.acts[l] = acts;
    }
    experts_carve(&f, a, p);
    f.xn = arena_f32(a, T * c->dim);
    f.act = arena_f32(a, T * c->ffn_dim);
    f.few = arena_f32(a, PASS_FEW_ROWS * widest);
    f.attention = arena_f32(a, attention_scratch(&f.heads, T, p->model->n_positions));
    if (p->options.backward)
        backward_carve(&f, a, c, T);
    head_carve(&f, a, c, p->chunk, p->options.backward);
    if (room)
        *room = f;
    p->floats = room;
}

static size_t pitch(const struct artel_model *m)
{
    return m->weights->config.dim;
}

struct float_acts *float_acts_of(const struct decoder_pass *p, size_t layer)
{
    return &p->floats->acts[p->one_layer ? 0 : layer];
}

struct apply_place float_place(struct decoder_pass *p, size_t layer, enum site s)
{
    return (struct apply_place){.mixture = p->mixture,
                                .layer = layer,
                                .site = s,
                                .gates = pass_gates(p, layer, s),
                                .dropout = p->options.dropout,
                                .dropout_seed = p->options.dropout_seed,
                                .kept = float_acts_of(p, layer)->h[s]};
}

const struct step_ops float_ops = {
    .row_step = 1,
    .in_parts = false,
    .reads_inputs = true,
    .pitch = pitch,
    .carve = carve,
    .norm = float_norm,
    .qkv = float_qkv,
    .attend = float_attend,
    .output = float_output,
    .gate_up = float_gate_up,
    .down = float_down,
    .read_routers = float_read_routers,
    .read_pools = float_read_pools,
    .down_backward = float_down_backward,
    .gate_up_backward = float_gate_up_backward,
    .output_backward = float_output_backward,
    .attend_backward = float_attend_backward,
    .qkv_backward = float_qkv_backward,
    .norm_backward = float_norm_backward,
    .loss = float_loss,
};
