/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the progress of training is shown, and what is kept of it for JSON.
 */
#ifndef ARTEL_CLI_TRAINING_H
#define ARTEL_CLI_TRAINING_H

#include "cli/report.h"

struct training {
    struct progress progress;
    bool quiet;
    double start;
    json_t
        *stages; /* {"name", "state", "steps", "loss", "validation_loss", "seconds"} */
    json_t *stage; /* the current one, borrowed from STAGES; NULL before the first */
    double stage_start;
};

void training_init(struct training *t, bool quiet);
void training_release(struct training *t);
/* For artel_train_options; USER is a struct training. */
void training_show(void *user, const struct artel_progress *p);
json_t *training_json(const struct training *t, const char *output);

#endif
