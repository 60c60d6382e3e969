/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which router inputs of a stage may be kept on disk, and what each depends on.
 *
 * They lie in OUTPUT/train/router-inputs, beside the folders of the stages: stages share
 * them, and a stage that is trained anew finds them. So does a mixture of the run that
 * grows.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "base/error.h"
#include "files/write.h"
#include "plan/stages.h"
#include "train/kept_inputs.h"

#define FOLDER "router-inputs"

static void warn(void *user, const char *message)
{
    const struct job *job = user;

    job_tell(job, NULL, RUN_WARNING, message);
}

/* Digest of what the input of every row depends on; one expert that only the row's own
 * domain runs through is the row's. */
static void digest_shared(char out[DIGEST_SIZE], const struct job *job,
                          const struct stage *s, const struct mixture *m)
{
    const struct gate_rule *rule = &m->rule;
    char text[1024], fixed[DIGEST_SIZE] = "";
    int n = snprintf(text, sizeof(text),
                     "artel " ARTEL_VERSION " base %s %s %s place %d pool %d "
                     "routers %zu width %zu reads",
                     job->model->base_digest,
                     stage_precision(job, s) == PRECISION_BF16 ? "bf16" : "fp32",
                     cpu_isa_name(cpu_isa()), (int)rule->place, (int)rule->pool,
                     m->n_routers, m->routers[0].dim);

    for (size_t i = 0; i < rule->n_reads; i++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, " %u",
                      (unsigned)rule->reads[i]);
    for (size_t e = 0; e < rule->n_fixed; e++) {
        expert_digest(&m->experts[e], fixed);
        n += snprintf(text + n, sizeof(text) - (size_t)n, " %s", fixed);
    }
    digest_bytes(out, text, (size_t)n);
}

static int name_rows(struct kept_inputs *k, const struct job *job,
                     const struct stage *s, const struct mixture *m,
                     struct artel_error *err)
{
    const bool of_base = m->rule.place == ROUTER_BASE;
    size_t first, end;
    int rc = 0;

    stage_texts(job, s, &first, &end);
    for (size_t i = first; rc == 0 && i < end; i++) {
        const struct corpus *c = job->texts.trains[i];
        char own[DIGEST_SIZE] = "base";

        if (!of_base)
            expert_digest(&m->experts[i], own);
        for (size_t k_row = 0; rc == 0 && k_row < corpus_count(c); k_row++) {
            const struct example *row = corpus_at(c, k_row);

            if (!texts_holds_out(&job->texts, row))
                rc = kept_inputs_name(
                    k, row, of_base ? row->pool_first + row->pool_n : row->n, own, err);
        }
    }
    return rc;
}

static char *inputs_folder(const struct job *job)
{
    const bool grows_in_run = job->grow && job->grow->run;

    return grows_in_run ? path_join(job->grow->run, "train/" FOLDER)
                        : output_path(job, "train", FOLDER);
}

int stage_kept_inputs(struct kept_inputs **out, const struct job *job,
                      const struct stage *s, const struct mixture *m,
                      struct artel_error *err)
{
    char *folder = inputs_folder(job);
    char of[DIGEST_SIZE];
    struct kept_options o = {.folder = folder,
                             .of = of,
                             .floats = m->n_routers * m->routers[0].dim,
                             .limit_bytes = (uint64_t)job->r->router.cache_mib << 20,
                             .warn = warn,
                             .user = (void *)(uintptr_t)job};
    int rc;

    *out = NULL;
    if (!o.limit_bytes) {
        free(folder);
        return 0;
    }
    digest_shared(of, job, s, m);
    rc = folder ? kept_inputs_open(out, &o, err) : error_nomem(err, 256);
    free(folder);
    if (rc == 0)
        rc = name_rows(*out, job, s, m, err);
    if (rc < 0) {
        kept_inputs_close(*out);
        *out = NULL;
    }
    return rc;
}

void tell_inputs(const struct job *job, const struct stage *s, size_t found,
                 size_t computed)
{
    char message[128];

    snprintf(message, sizeof(message),
             "router inputs: %zu rows found on disk, %zu computed", found, computed);
    job_tell(job, s, RUN_NOTE, message);
}
