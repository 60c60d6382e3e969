/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mixture on disk: mixture.json, router.safetensors and the experts it names
 * by relative paths.
 */
#ifndef ARTEL_SAVE_MIXTURE_FILE_H
#define ARTEL_SAVE_MIXTURE_FILE_H

#include <jansson.h>

#include "experts/mixture.h"

struct artel_error;
struct artel_model;

/* One domain of a mixture as mixture.json keeps it. */
struct domain_notes {
    char name[EXPERT_NAME_MAX + 1];
    char *folder; /* of its expert, relative to the mixture's folder; owned */
    char *train, *valid, *test; /* paths, or NULL; owned */
    char *score;                /* how answers are scored, or NULL; owned */
    char *sample;               /* stored sample of rows, relative, or NULL; owned */
    char train_digest[DIGEST_SIZE];
};

void domain_notes_release(struct domain_notes *d);

/* Where an expert lies. */
struct expert_notes {
    char name[EXPERT_NAME_MAX + 1];
    enum expert_kind kind;
    char *folder; /* relative to the mixture's folder, NULL: identity; owned */
};

struct mixture_file {
    struct mixture mixture;
    char *folder;    /* owned */
    char *base_path; /* as the recipe named it, absolute; owned */
    char base_digest[DIGEST_SIZE], tokenizer_digest[DIGEST_SIZE],
        chat_digest[DIGEST_SIZE];
    size_t n_domains; /* = n_experts for the methods with one expert a domain */
    struct domain_notes *domains;   /* owned */
    struct domain_notes *universal; /* text and expert of no domain, or NULL; owned */
    /* Filled by mixture_file_open, with or without a model. The write takes an expert's
     * folder from the domain of its name, else from here, else from the domain whose folder
     * ends in its name, else it is "experts/NAME". */
    size_t n_notes;
    struct expert_notes *notes; /* owned */
    json_t *settings; /* every setting of the method and its training; owned */
    json_t *training; /* summary: steps, tokens, seconds, per stage; owned */
};

/* PATH: a mixture folder, or a folder that holds exactly one. Without MODEL only the
 * description is read: no expert, no router. FORCE as in adapter_read. */
int mixture_file_open(struct mixture_file *f, const char *path,
                      const struct artel_model *model, bool force,
                      struct artel_error *err);
void mixture_file_release(struct mixture_file *f);
/* Texts that the mixture was taught: the domains', then the universal one. */
size_t mixture_file_texts(const struct mixture_file *f);
const struct domain_notes *mixture_file_text(const struct mixture_file *f, size_t i);
/* Writes routers first, mixture.json last: a crash leaves the old mixture. Experts are
 * written by adapter_write before. */
int mixture_file_write(const struct mixture_file *f, struct artel_error *err);

#endif
