/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How well does each expert of a mixture know the answers of a file? One line an
 * expert, the base and the routers' own choice included.
 *
 *     cc score.c -o score $(pkg-config --cflags --libs artel)
 *     ./score runs/eight/moa data/math/test.jsonl
 */
#include <artel.h>
#include <stdio.h>

/* Perplexity of FILE when EXPERT answers. */
static int score(const struct artel_mixture *mixture, const char *file,
                 const char *name, struct artel_error *err)
{
    struct artel_score_options options;
    struct artel_score result;
    int rc;

    artel_score_options_default(&options);
    rc = artel_expert_find(mixture, &options.expert, name, err);
    if (rc == 0)
        rc = artel_score(&result, mixture, file, &options, err);
    if (rc < 0)
        return rc;
    printf("%-20s %10.4f over %zu tokens\n", name, result.perplexity,
           result.answer_tokens);
    artel_score_release(&result);
    return 0;
}

int main(int argc, char **argv)
{
    struct artel_mixture *mixture = NULL;
    struct artel_mixture_info info;
    struct artel_error err = {0};
    char text[1024];
    int rc;

    if (argc != 3) {
        fprintf(stderr, "usage: score MIXTURE FILE\n");
        return 2;
    }
    rc = artel_set_threads(0, &err);
    if (rc == 0)
        rc = artel_mixture_open(&mixture, argv[1], NULL, NULL, &err);
    if (rc == 0) {
        artel_mixture_info(mixture, &info);
        for (int e = ARTEL_BASE; rc == 0 && e < (int)info.n_experts; e++)
            rc = score(mixture, argv[2], artel_expert_name(mixture, e), &err);
        if (rc == 0 && info.routes)
            rc = score(mixture, argv[2], "auto", &err);
    }
    if (rc < 0)
        fprintf(stderr, "error: %s\n", artel_error_text(text, sizeof(text), &err));
    artel_mixture_close(mixture);
    return -rc;
}
