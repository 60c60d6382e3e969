/* SPDX-License-Identifier: Apache-2.0 */
/*
 * artel chat MIXTURE: a conversation, each user turn routed anew. Lines that begin
 * with a slash are for the program.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/asking.h"
#include "cli/commands.h"
#include "cli/signals.h"

struct chat {
    struct artel_mixture *m;
    struct artel_session *session;
    struct artel_generate_options g;
    struct artel_answer last;
    json_t *messages;   /* of the conversation so far */
    char *text;         /* the same without a template; owned, or NULL */
    const char *system; /* or NULL */
    bool raw, terminal; /* terminal: a person sits at both ends */
    bool quit;
};

static int show_text(void *user, const char *text, size_t n)
{
    (void)user;
    fwrite(text, 1, n, stdout);
    return fflush(stdout) != 0;
}

static void forget(struct chat *c)
{
    json_array_clear(c->messages);
    if (c->system)
        json_array_append_new(c->messages, json_pack("{s:s, s:s}", "role", "system",
                                                     "content", c->system));
    free(c->text);
    c->text = NULL;
    artel_session_reset(c->session);
    artel_answer_release(&c->last);
}

static const char *name_of(const struct chat *c, int expert)
{
    const char *const name = artel_expert_name(c->m, expert);

    return name ? name : "auto";
}

/* Each expert's gate, averaged over routers and tokens. */
static void why_on_average(const struct chat *c)
{
    const struct artel_answer *const a = &c->last;

    if (a->from_base)
        printf("One router read your turn before any expert did:\n");
    else
        printf("Every token was weighed on its own, at each of %zu linears. On "
               "average:\n",
               a->n_routers);
    for (size_t e = 0; e < a->n_experts; e++) {
        double sum = 0;

        for (size_t r = 0; r < a->n_routers; r++)
            sum += (double)a->probabilities[r * a->n_experts + e];
        printf("  %-20s %6.3f%s\n", name_of(c, (int)e), sum / (double)a->n_routers,
               (int)e == a->expert ? " *" : "");
    }
}

/* Each layer's probabilities, experts as columns. */
static void why(const struct chat *c)
{
    const struct artel_answer *const a = &c->last;

    if (!a->text) {
        printf("Nothing has been answered yet.\n");
        return;
    }
    if (!a->probabilities) {
        printf("The last answer was not routed: %s gave it.\n", name_of(c, a->expert));
        return;
    }
    if (a->per_token || a->from_base) {
        why_on_average(c);
        return;
    }
    printf("%-6s", "layer");
    for (size_t e = 0; e < a->n_experts; e++)
        printf("  %8.8s", name_of(c, (int)e));
    printf("\n");
    for (size_t r = 0; r < a->n_routers; r++) {
        const size_t best = routing_choice(a, r);

        printf("%-6zu", r);
        for (size_t e = 0; e < a->n_experts; e++)
            printf("  %7.3f%s", (double)a->probabilities[r * a->n_experts + e],
                   e == best ? "*" : " ");
        printf("\n");
    }
    printf("%zu of %zu routers chose %s, which answered.\n", a->layers_agreeing,
           a->n_routers, name_of(c, a->expert));
}

static void choose(struct chat *c, const char *name)
{
    struct artel_error err = {0};
    int expert;

    if (!*name) {
        printf("answers come from %s; there are base", name_of(c, c->g.expert));
        for (int e = 0; artel_expert_name(c->m, e); e++)
            printf(", %s", artel_expert_name(c->m, e));
        printf("\n");
    } else if (artel_expert_find(c->m, &expert, name, &err) < 0) {
        printf("%s\n", err.reason);
    } else {
        c->g.expert = expert;
        printf("answers come from %s\n", name_of(c, expert));
    }
}

static void command(struct chat *c, const char *line)
{
    static const char *const names[] = {"/why", "/expert", "/reset", "/help", "/quit"};
    const char *near;

    if (!strcmp(line, "/why")) {
        why(c);
    } else if (!strncmp(line, "/expert", 7) && (line[7] == ' ' || !line[7])) {
        choose(c, line + 7 + strspn(line + 7, " "));
    } else if (!strcmp(line, "/reset")) {
        forget(c);
        printf("a new conversation\n");
    } else if (!strcmp(line, "/quit") || !strcmp(line, "/exit")) {
        c->quit = true;
    } else {
        near = option_nearest(line, names, sizeof(names) / sizeof(names[0]));
        if (strcmp(line, "/help"))
            printf("unknown command%s%s\n", near ? "; did you mean " : "",
                   near ? near : "");
        printf("/why            each layer's router, for the last answer\n"
               "/expert NAME    who answers: an expert, auto or base\n"
               "/reset          forget the conversation\n"
               "/quit           leave\n");
    }
}

/* The prompt for LINE after what was said before. */
static int make_prompt(struct chat *c, struct artel_prompt *p, const char *line)
{
    const size_t before = c->text ? strlen(c->text) : 0, n = strlen(line);
    char *text;

    *p = (struct artel_prompt){.raw = c->raw};
    if (!c->raw) {
        json_t *const turn = json_pack("{s:s, s:s}", "role", "user", "content", line);

        if (!turn || json_array_append_new(c->messages, turn) < 0)
            return -1;
        p->text = json_dumps(c->messages, JSON_COMPACT);
    } else if ((text = realloc(c->text, before + n + 1))) {
        memcpy(text + before, line, n + 1);
        c->text = text;
        p->text = strdup(text);
    }
    if (!p->text)
        return -1;
    p->n = strlen(p->text);
    return 0;
}

/* Remember the answer as a turn; without one, the question is forgotten too. */
static void remember(struct chat *c, bool answered)
{
    char *text;

    if (!c->raw && answered)
        json_array_append_new(c->messages,
                              json_pack("{s:s, s:s%}", "role", "assistant", "content",
                                        c->last.text, c->last.n_text));
    else if (!c->raw)
        json_array_remove(c->messages, json_array_size(c->messages) - 1);
    else if (answered &&
             (text = realloc(c->text, strlen(c->text) + c->last.n_text + 1))) {
        memcpy(text + strlen(text), c->last.text, c->last.n_text + 1);
        c->text = text;
    }
}

static void print_footer(const struct chat *c)
{
    const struct artel_answer *const a = &c->last;
    const double rate =
        a->decode_seconds > 0 ? (double)a->n_ids / a->decode_seconds : 0;

    printf(c->terminal ? "\n\033[2m[%s" : "\n[%s", name_of(c, a->expert));
    if (a->probabilities && a->per_token)
        printf(", most weight on average");
    else if (a->probabilities && !a->from_base)
        printf(", %zu of %zu routers", a->layers_agreeing, a->n_routers);
    printf("%s, %.1f tokens/s]", a->merged ? ", merged" : "", rate);
    printf(c->terminal ? "\033[0m\n\n" : "\n\n");
}

/* Answers one line. 0, or an exit code that ends the conversation. */
static int say(struct chat *c, const char *line)
{
    struct artel_prompt p = {0};
    struct artel_error err = {0};
    int rc;

    if (make_prompt(c, &p, line) < 0) {
        printf("that is no UTF-8, or there is no memory for it\n");
        return 0;
    }
    artel_answer_release(&c->last);
    rc = artel_generate(c->session, &c->last, c->m, &p, &c->g, &err);
    free(p.text);
    remember(c, rc == 0);
    if (rc < 0) {
        rc = report_error(&err);
        return err.exit == -ARTEL_ELIMIT && c->terminal ? 0 : rc; /* /reset helps */
    }
    print_footer(c);
    if (!c->terminal)
        return signals_exit_code();
    signals_forget(); /* the signal ended the answer, not the conversation */
    return 0;
}

static int converse(struct chat *c, FILE *f)
{
    char *line = NULL;
    size_t room = 0;
    int rc = 0;

    while (!rc && !c->quit) {
        ssize_t n;

        if (c->terminal)
            printf("> ");
        fflush(stdout);
        errno = 0;
        n = getline(&line, &room, f);
        if (n < 0)
            break;
        while (n && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            line[--n] = '\0';
        if (line[0] == '/')
            command(c, line);
        else if (n && strlen(line) == (size_t)n)
            rc = say(c, line);
        else if (n)
            printf("a line must not hold NUL\n");
        fflush(stdout);
        if (ferror(stdout))
            break;
    }
    if (c->terminal)
        printf("\n");
    free(line);
    return rc ? rc : signals_exit_code();
}

static int chat(struct chat *c, const struct asking *a)
{
    struct artel_error err = {0};
    const char *path = NULL;
    FILE *f = stdin;
    int rc;

    if (artel_session_open(&c->session, c->m, (size_t)a->context, &err) < 0)
        return report_error(&err);
    if (a->prompt_file && strcmp(a->prompt_file, "-")) {
        path = a->prompt_file;
        f = fopen(path, "r");
        if (!f)
            return report_errno(path, "cannot open");
    }
    c->terminal = !path && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    c->messages = json_array();
    forget(c);
    if (c->terminal)
        printf("/help tells what there is beside talking.\n");
    rc = a->prompt ? say(c, a->prompt) : 0;
    if (!rc)
        rc = converse(c, f);
    if (path)
        fclose(f);
    return rc;
}

int cmd_chat(int argc, char **argv)
{
    struct options o = {
        .command = "chat",
        .usage = "MIXTURE [--expert auto|base|NAME]",
        .about =
            "A conversation. Each turn is routed anew and shows which expert answered; "
            "/why shows every layer's router, /expert NAME fixes one, /reset begins "
            "again, /quit leaves. Lines may come from a pipe or a file as well.",
        .examples = "  artel chat runs/eight/moa\n"
                    "  artel chat model.gguf --system 'Answer in one word.'\n"
                    "  printf 'Hello\\n/why\\n' | artel chat runs/eight/moa\n",
        .min_words = 1,
        .max_words = 1};
    static struct asking a;
    struct common c = {0};
    struct chat chat_state = {0};
    struct words words;
    int rc = 0;

    asking_options(&o, &a);
    common_options(&o, &c);
    if (!options_parse(&o, argc, argv, &words, &rc))
        return rc;
    if (c.json)
        return usage_error("chat", "--json", "USE06",
                           "a conversation has none; use run");
    if ((rc = asking_check(&o, &a)) || (rc = common_start(&c)))
        return rc;
    chat_state.raw = a.raw;
    chat_state.system = a.system;
    chat_state.m = common_mixture(&c, words.at[0], &rc);
    if (!chat_state.m)
        return rc;
    rc = asking_generate(&chat_state.g, &o, &a, &c, chat_state.m);
    chat_state.g.on_text = show_text;
    if (!rc)
        rc = chat(&chat_state, &a);
    artel_answer_release(&chat_state.last);
    json_decref(chat_state.messages);
    free(chat_state.text);
    artel_session_close(chat_state.session);
    artel_mixture_close(chat_state.m);
    return rc;
}
