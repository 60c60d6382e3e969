/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mixtures made and trained in memory, for callers that have rows of their own.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "eval/opened.h"
#include "files/write.h"
#include "save/adapter.h"
#include "train/trainer.h"

int artel_mixture_new(struct artel_mixture **out, struct artel_model *model,
                      const char *method, const char *precision,
                      struct artel_error *err)
{
    const int use = MATRIX_DECODE | MATRIX_FORWARD | MATRIX_BACKWARD;
    struct artel_mixture *m;
    enum precision chosen;
    struct gate_rule rule;
    int rc;

    *out = NULL;
    if (method_rule(&rule, method) < 0 || !strcmp(method, "base") ||
        (rule.place != ROUTER_NONE && !method_traits(method)->labelled))
        return error_set(err, ARTEL_EUSAGE, "USE05", "method",
                         "expected single, mixed or moa");
    rc = precision_choose(&chosen, precision, err);
    if (rc == 0)
        rc = model_check_finite(model, err);
    if (rc == 0)
        rc = model_prepare(model, chosen, use, model->weights->config.context, err);
    if (rc < 0)
        return rc;
    m = calloc(1, sizeof(*m));
    if (!m || !(m->path = strdup(""))) {
        free(m);
        return error_nomem(err, sizeof(*m));
    }
    m->model = model;
    rc = mixture_init(&m->file.mixture, method, &model->weights->config, &rule, err);
    if (rc < 0) {
        artel_mixture_close(m);
        return rc;
    }
    m->mixture = &m->file.mixture;
    *out = m;
    return 0;
}

void artel_expert_options_default(struct artel_expert_options *o)
{
    *o = (struct artel_expert_options){.rank = 8, .alpha = 16, .seed = 1};
}

/* "q_proj,v_proj" to one flag a linear. */
static int read_linears(bool *targets, const char *list, struct artel_error *err)
{
    char name[32];

    for (int s = 0; s < N_SITES; s++)
        targets[s] = !list;
    while (list && *list) {
        const size_t n = strcspn(list, ",");
        int site = -1;

        if (n < sizeof(name)) {
            memcpy(name, list, n);
            name[n] = '\0';
            site = site_from_name(name);
        }
        if (site < 0)
            return error_set(err, ARTEL_EUSAGE, "USE05", "linears",
                             "expected names such as q_proj, with commas between");
        targets[site] = true;
        list += n + (list[n] == ',');
    }
    return 0;
}

int artel_mixture_add(struct artel_mixture *m, const char *name,
                      const struct artel_expert_options *o, struct artel_error *err)
{
    const struct model_config *const c = &m->model->weights->config;
    struct artel_expert_options defaults;
    struct lora_options lora;
    struct expert e = {0};
    int rc;

    if (!m->mixture)
        return error_set(err, ARTEL_EUSAGE, "USE13", NULL,
                         "a bare model takes no experts: artel_mixture_new() makes a "
                         "mixture over it");
    artel_expert_options_default(&defaults);
    o = o ? o : &defaults;
    if (!expert_name_valid(name) || !strcmp(name, "base") || !strcmp(name, "auto"))
        return error_set(
            err, ARTEL_EUSAGE, "USE05", "name",
            "an expert's name has 1 to 64 letters, digits, dots, dashes and "
            "underscores, and is not base or auto");
    if (o->rank < 1 || o->rank > EXPERT_MAX_RANK ||
        !(o->alpha > 0 && o->alpha < 1e6f) || !(o->dropout >= 0 && o->dropout < 1))
        return error_set(err, ARTEL_EUSAGE, "USE05", "rank, alpha, dropout",
                         "expected 1 to %d, above 0, and 0 to below 1",
                         EXPERT_MAX_RANK);
    lora_options_default(&lora);
    lora.rank = o->rank;
    lora.alpha = o->alpha;
    lora.dropout = o->dropout;
    rc = read_linears(lora.targets, o->linears, err);
    if (rc == 0)
        rc = expert_init_uniform(&e, name, c, &lora, err);
    if (rc == 0) {
        expert_draw(&e, o->seed, m->file.mixture.n_experts);
        rc = mixture_add(&m->file.mixture, &e, c, err);
    }
    expert_release(&e);
    return rc;
}

static int save_experts(struct mixture_file *f, const struct artel_mixture *m,
                        struct artel_error *err)
{
    const struct mixture *const mix = m->mixture;
    struct domain_notes *d;
    int rc = 0;

    f->domains = calloc(mix->n_experts + 1, sizeof(*f->domains));
    if (!f->domains)
        return error_nomem(err, mix->n_experts * sizeof(*f->domains));
    for (size_t e = 0; rc == 0 && e < mix->n_experts; e++) {
        const struct adapter_notes notes = {
            .domain = mix->experts[e].name,
            .base_path = f->base_path,
            .base_digest = f->base_digest,
            .tokenizer_digest = f->tokenizer_digest,
            .chat_digest = *f->chat_digest ? f->chat_digest : NULL};
        struct expert learnt;
        char *path = NULL;

        if (mix->experts[e].kind == EXPERT_IDENTITY)
            continue; /* mixture.json says all there is of it */
        d = &f->domains[f->n_domains++];
        strcpy(d->name, mix->experts[e].name);
        d->folder = path_join("experts", mix->experts[e].name);
        if (d->folder)
            path = path_join(f->folder, d->folder);
        rc = path ? mixture_learnt(&learnt, mix, e, err)
                  : error_nomem(err, EXPERT_NAME_MAX);
        if (rc == 0) {
            rc = adapter_write(path, &learnt, &m->model->weights->config, NULL, &notes,
                               err);
            free(learnt.lora);
        }
        free(path);
    }
    return rc;
}

int artel_mixture_save(const struct artel_mixture *m, const char *folder,
                       struct artel_error *err)
{
    const struct artel_model *const model = m->model;
    struct mixture_file f = {0};
    int rc;

    if (!m->mixture || !m->mixture->n_experts)
        return error_set(err, ARTEL_EUSAGE, "USE13", NULL,
                         "there is no expert to save");
    f.folder = strdup(folder);
    f.base_path = realpath(model->weights->path, NULL);
    f.settings = json_object();
    f.training = json_object();
    memcpy(f.base_digest, model->base_digest, DIGEST_SIZE);
    memcpy(f.tokenizer_digest, model->tokenizer_digest, DIGEST_SIZE);
    memcpy(f.chat_digest, model->chat_digest, DIGEST_SIZE);
    if (!f.folder || !f.base_path || !f.settings || !f.training)
        rc = error_nomem(err, 4096);
    else
        rc = make_folder(folder, err);
    if (rc == 0)
        rc = save_experts(&f, m, err);
    if (rc == 0) {
        f.mixture = *m->mixture;
        rc = mixture_file_write(&f, err);
        f.mixture = (struct mixture){0}; /* still the caller's */
    }
    mixture_file_release(&f);
    return rc;
}

void artel_trainer_options_default(struct artel_trainer_options *o)
{
    *o = (struct artel_trainer_options){.learning_rate = 2e-4f,
                                        .router_learning_rate = 1e-2f,
                                        .router_loss = 0.1f,
                                        .max_grad_norm = 1,
                                        .schedule = "constant",
                                        .train_routers = 1,
                                        .max_row_tokens = 1024,
                                        .seed = 1};
}

int artel_trainer_open(struct artel_trainer **out, struct artel_mixture *m,
                       const struct artel_trainer_options *o, struct artel_error *err)
{
    const int kind = schedule_from_name(o->schedule ? o->schedule : "constant");
    struct mixture *const mixture = &m->file.mixture;
    struct train_options to;
    bool *trained;
    int rc;

    *out = NULL;
    if (kind < 0)
        return error_set(err, ARTEL_EUSAGE, "USE05", "schedule",
                         "expected constant, linear or cosine");
    if (!m->mixture || !mixture->n_experts)
        return error_set(err, ARTEL_EUSAGE, "USE13", NULL,
                         "there is no expert to train");
    if (method_traits(mixture->method)->made || mixture->rule.place == ROUTER_BASE ||
        mixture->rule.place == ROUTER_TEXT)
        return error_set(err, ARTEL_EUSAGE, "USE13", mixture->method,
                         "its routers are made of what its experts are now: train an "
                         "expert alone, then make the mixture again");
    train_options_default(&to);
    to.learning_rate = o->learning_rate;
    to.router_learning_rate = o->router_learning_rate;
    to.eta = mixture->n_routers && o->train_routers ? o->router_loss : 0;
    to.weight_decay = o->weight_decay;
    to.max_grad_norm = o->max_grad_norm;
    to.schedule = (struct schedule){.kind = (enum schedule_kind)kind,
                                    .warmup_steps = o->warmup_steps,
                                    .total_steps = o->total_steps};
    to.seed = o->seed;
    to.max_row_tokens = o->max_row_tokens < m->model->n_positions
                            ? o->max_row_tokens
                            : m->model->n_positions;
    trained = calloc(mixture->n_experts, sizeof(*trained));
    if (!trained)
        return error_nomem(err, mixture->n_experts);
    for (size_t e = 0; e < mixture->n_experts; e++)
        trained[e] = true;
    rc = trainer_open(out, m->model, mixture, trained,
                      mixture->n_routers && o->train_routers, &to, err);
    free(trained);
    return rc;
}

void artel_trainer_close(struct artel_trainer *t)
{
    trainer_close(t);
}

/* No index of a row reaches past what the model and the mixture have. */
static int check_row(const struct artel_trainer *t, const struct artel_row *r, size_t i,
                     struct artel_error *err)
{
    const size_t n_vocab = trainer_model(t)->weights->config.n_vocab;

    if (r->n < 2 || r->n_prompt < 1 || r->n_prompt >= r->n)
        return error_set(err, ARTEL_EUSAGE, "USE14", NULL,
                         "row %zu needs a prompt and an answer", i);
    if (r->expert < 0 || (size_t)r->expert >= trainer_mixture(t)->n_experts)
        return error_set(err, ARTEL_EUSAGE, "USE14", NULL,
                         "row %zu: expert %d is not among the %zu", i, r->expert,
                         trainer_mixture(t)->n_experts);
    for (size_t k = 0; k < r->n; k++)
        if (r->ids[k] < 0 || (size_t)r->ids[k] >= n_vocab)
            return error_set(err, ARTEL_EUSAGE, "USE14", NULL,
                             "row %zu: id %ld is not among the %zu tokens", i,
                             (long)r->ids[k], n_vocab);
    return 0;
}

/* Rows as examples; MARKS gets the loss marks of all, one after another. */
static int make_examples(const struct artel_trainer *t, struct example *examples,
                         const struct example **list, unsigned char *marks,
                         const struct artel_row *rows, size_t n,
                         struct artel_error *err)
{
    for (size_t i = 0; i < n; i++) {
        const struct artel_row *const r = &rows[i];
        const int rc = check_row(t, r, i, err);

        if (rc < 0)
            return rc;
        memset(marks + r->n_prompt, 1, r->n - r->n_prompt);
        examples[i] = (struct example){.ids = r->ids,
                                       .n = r->n,
                                       .n_prompt = r->n_prompt,
                                       .loss = marks,
                                       .pool_n = r->n_prompt,
                                       .n_loss = r->n - r->n_prompt,
                                       .domain = (uint32_t)r->expert,
                                       .row = i + 1};
        list[i] = &examples[i];
        marks += r->n;
    }
    return 0;
}

int artel_trainer_step(struct artel_trainer *t, struct artel_step *out,
                       const struct artel_row *rows, size_t n, struct artel_error *err)
{
    struct example *const examples = calloc(n + 1, sizeof(*examples));
    const struct example **const list = calloc(n + 1, sizeof(*list));
    struct step_report report;
    struct batch batch = {.rows = list, .n_rows = n};
    unsigned char *marks;
    int rc;

    for (size_t i = 0; i < n; i++)
        batch.n_tokens += rows[i].n;
    marks = calloc(batch.n_tokens + 1, 1);
    if (!examples || !list || !marks)
        rc = error_nomem(err, batch.n_tokens);
    else if (!n)
        rc = error_set(err, ARTEL_EUSAGE, "USE14", NULL, "a step needs rows");
    else
        rc = make_examples(t, examples, list, marks, rows, n, err);
    for (size_t i = 0; rc == 0 && i < n; i++)
        batch.n_loss += examples[i].n_loss;
    if (rc == 0)
        rc = trainer_step(t, &batch, 1, &report, err);
    if (rc == 0)
        *out = (struct artel_step){.step = report.step,
                                   .loss = (double)report.loss,
                                   .router_loss = (double)report.router_loss,
                                   .grad_norm = (double)report.grad_norm,
                                   .learning_rate = (double)report.rate,
                                   .seconds = report.seconds};
    free(examples);
    free(list);
    free(marks);
    return rc;
}
