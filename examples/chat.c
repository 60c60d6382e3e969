/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ask one question and tell which expert answered it.
 *
 *     cc chat.c -o chat $(pkg-config --cflags --libs artel)
 *     ./chat runs/eight/moa "What is 12 * 12?"
 *
 * The first word is a mixture's folder or a model.
 */
#include <artel.h>
#include <stdio.h>

static int show(void *user, const char *text, size_t n)
{
    (void)user;
    fwrite(text, 1, n, stdout);
    return fflush(stdout); /* not 0 ends the answer */
}

int main(int argc, char **argv)
{
    struct artel_generate_options options;
    struct artel_mixture *mixture = NULL;
    struct artel_session *session = NULL;
    struct artel_answer answer = {0};
    struct artel_prompt prompt = {0};
    struct artel_error err = {0};
    char text[1024];
    int rc;

    if (argc != 3) {
        fprintf(stderr, "usage: chat MIXTURE QUESTION\n");
        return 2;
    }
    rc = artel_set_threads(0, &err);
    if (rc == 0)
        rc = artel_mixture_open(&mixture, argv[1], NULL, NULL, &err);
    if (rc == 0)
        rc = artel_session_open(&session, mixture, 0, &err);
    if (rc == 0)
        rc = artel_prompt_user(&prompt, argv[2], NULL, &err);
    if (rc == 0) {
        artel_generate_options_default(&options, mixture);
        rc = artel_expert_find(mixture, &options.expert, "auto", &err);
        options.on_text = show;
    }
    if (rc == 0)
        rc = artel_generate(session, &answer, mixture, &prompt, &options, &err);
    if (rc == 0)
        printf("\n-- %s, %zu of %zu routers agree\n",
               artel_expert_name(mixture, answer.expert), answer.layers_agreeing,
               answer.n_routers);
    else
        fprintf(stderr, "error: %s\n", artel_error_text(text, sizeof(text), &err));
    artel_answer_release(&answer);
    artel_free(prompt.text);
    artel_session_close(session);
    artel_mixture_close(mixture);
    return -rc;
}
