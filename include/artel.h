/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Train and serve mixtures of LoRA experts over one frozen language model.
 *
 *     model    the frozen base with its tokenizer; never changes once open
 *     mixture  experts and the routers that choose among them, over a model
 *     session  one growing sequence of tokens and its cache: a conversation
 *     trainer  experts of a mixture being trained, step by step
 *
 * A model or a mixture may be used by any number of threads at once, once it is
 * open, and must outlive what was made from it. A session or a trainer belongs to
 * one thread at a time.
 *
 * Functions that return int return 0, or a negative ARTEL_E* code with the reason
 * in *ERR (which may be NULL). When a function that makes something fails, *OUT
 * is NULL or empty. Paths and texts are UTF-8 bytes ended by NUL unless a length
 * stands beside them. Text that comes back as char * in *OUT is freed with
 * artel_free(). The library prints nothing unless artel_set_log_level() says so,
 * and never ends the process.
 */
#ifndef ARTEL_H
#define ARTEL_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define ARTEL_API __attribute__((visibility("default")))
#else
#define ARTEL_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What went wrong; the program's exit code is minus the number. */
enum {
    ARTEL_EBUG = -1,       /* a fault of the library itself */
    ARTEL_EUSAGE = -2,     /* wrong use: unknown name, value out of range */
    ARTEL_EFORMAT = -3,    /* the content of a file is not what it should be */
    ARTEL_EIO = -4,        /* reading or writing failed */
    ARTEL_ELIMIT = -5,     /* memory, threads, descriptors, CPU features */
    ARTEL_ECONFLICT = -6,  /* folder in use, output exists, another run's checkpoint */
    ARTEL_ENONFINITE = -7, /* training met a value that is not finite */
    ARTEL_ESTOPPED = -8    /* asked to stop; everything is saved */
};

struct artel_error {
    int exit;         /* exit code for a program: 1 to 7 */
    char code[8];     /* stable, for scripts: "GGUF07" */
    char file[256];   /* path, or "" */
    char where[160];  /* tensor, key, line:column or byte offset, or "" */
    char reason[256]; /* what was found and what was expected */
};

struct artel_model;
struct artel_mixture;
struct artel_session;
struct artel_trainer;

/* ---- the library ---- */

ARTEL_API const char *artel_version(void); /* "0.1.0" */

/* Threads of every later computation; 0: one a CPU this process may run on. Call it
 * once, first. ARTEL_ELIMIT also where the environment's ARTEL_CPU cannot be met. */
ARTEL_API int artel_set_threads(size_t n, struct artel_error *err);

/* To standard error: 0 nothing (the default), 1 warnings, 2 notes. */
ARTEL_API void artel_set_log_level(int level);

/* "FILE: WHERE: REASON [CODE]" into OUT (SIZE bytes, always ended). Returns OUT. */
ARTEL_API char *artel_error_text(char *out, size_t size, const struct artel_error *err);

/* TEXT (N bytes) safe to print: control bytes as \xNN, cut to 128 bytes. Returns OUT. */
ARTEL_API const char *artel_escape(char *out, size_t size, const char *text, size_t n);

ARTEL_API void artel_free(void *p); /* NULL is fine */

/* ---- model ---- */

/* PATH is a .gguf file, or a folder with config.json, tokenizer.json and
 * *.safetensors. Cheap: weights are read when something computes with them. */
ARTEL_API int artel_model_open(struct artel_model **out, const char *path,
                               struct artel_error *err);
ARTEL_API void artel_model_close(struct artel_model *m); /* NULL is fine */

struct artel_model_info {
    const char *architecture; /* "llama"; these strings live as long as the model */
    const char *digest; /* SHA-256 over names, shapes and samples, 64 hex digits */
    size_t n_layers, dim, n_vocab;
    size_t context; /* tokens it was made for */
    size_t n_parameters;
    size_t file_bytes;
    int has_chat_template;
};
ARTEL_API void artel_model_info(const struct artel_model *m,
                                struct artel_model_info *out);

/* Ids of TEXT (N bytes, NUL allowed) in *IDS (freed with artel_free) and *N_IDS. No BOS
 * or EOS is added. SPECIAL not 0: control tokens spelled in TEXT count as such. */
ARTEL_API int artel_tokenize(const struct artel_model *m, int32_t **ids, size_t *n_ids,
                             const char *text, size_t n, int special,
                             struct artel_error *err);

/* The bytes of N_IDS tokens in *TEXT (ended, freed with artel_free), their number in *N. */
ARTEL_API int artel_detokenize(const struct artel_model *m, char **text, size_t *n,
                               const int32_t *ids, size_t n_ids,
                               struct artel_error *err);

/* ---- mixture ---- */

struct artel_open_options {
    const char *model; /* base to use instead of the recorded one; NULL: the recorded */
    const char *precision; /* "auto", "fp32", "bf16" */
    size_t memory_bytes;   /* that may be used; 0: what the machine has */
    int force;             /* accept experts made for another base */
    int nonfinite;         /* accept a base with weights that are NaN or infinite */
};
ARTEL_API void artel_open_options_default(struct artel_open_options *o);

/*
 * Open what can answer: a mixture's folder, a bare model (no experts), or a PEFT adapter
 * folder (one expert; its base is O->model, or MODEL). MODEL is borrowed where not NULL;
 * else the mixture opens a model of its own. O may be NULL. Weights are made ready here:
 * where MODEL serves other mixtures already, in another precision or for less, its weights
 * are laid out anew, and no session or trainer over it may be open then.
 */
ARTEL_API int artel_mixture_open(struct artel_mixture **out, const char *path,
                                 struct artel_model *model,
                                 const struct artel_open_options *o,
                                 struct artel_error *err);
ARTEL_API void artel_mixture_close(struct artel_mixture *m); /* NULL is fine */
ARTEL_API const struct artel_model *artel_mixture_model(const struct artel_mixture *m);

struct artel_mixture_info {
    const char *path, *method; /* live as long as the mixture; "base": no experts */
    const char *precision;     /* "fp32" or "bf16" */
    size_t n_experts, n_routers;
    size_t n_parameters; /* of experts and routers */
    int routes;          /* it can choose an expert by itself */
};
ARTEL_API void artel_mixture_info(const struct artel_mixture *m,
                                  struct artel_mixture_info *out);

/* "base" for ARTEL_BASE; NULL where IDX is no expert. Lives as long as the mixture. */
ARTEL_API const char *artel_expert_name(const struct artel_mixture *m, int idx);

enum { ARTEL_AUTO = -2, ARTEL_BASE = -1 }; /* or the index of an expert */

/* "auto", "base" or a name to its number in *IDX. "auto" (or NULL) becomes the only
 * choice where a mixture cannot route and has one expert or none; with several
 * experts and no router, or for an unknown name, ARTEL_EUSAGE lists the names. */
ARTEL_API int artel_expert_find(const struct artel_mixture *m, int *idx,
                                const char *name, struct artel_error *err);

/* ---- generation ---- */

/* Experts whose gates hold for an answer may be added into its session's weights, in float:
 * the same within rounding. AUTO: where counting says it pays for the prompt and MAX_TOKENS,
 * never for answers side by side. ALWAYS: one by one, or refused (MRG01: no such gates). */
enum { ARTEL_MERGE_NEVER, ARTEL_MERGE_AUTO, ARTEL_MERGE_ALWAYS };

struct artel_generate_options {
    int expert;               /* ARTEL_AUTO, ARTEL_BASE or an index */
    size_t max_tokens;        /* 256 */
    float temperature;        /* 0: always the likeliest token */
    size_t top_k;             /* 0: all tokens */
    float top_p;              /* 1: all */
    float min_p;              /* 0: all; else of the likeliest token's probability */
    float repetition_penalty; /* 1: none */
    uint64_t seed;            /* same seed, same text */
    int merge;                /* ARTEL_MERGE_NEVER */
    const char *const *stop;  /* (n_stop) text that ends the answer; left out of it */
    size_t n_stop;            /* at most 16 of 1 to 256 bytes */
    const volatile sig_atomic_t *stopped; /* or NULL; not 0: end at the next token */
    /* Text as it comes, whole UTF-8 characters; not 0 ends the answer. May be NULL. */
    int (*on_text)(void *user, const char *text, size_t n);
    /* artel_generate_all: row ROW is done; calls come one at a time. May be NULL. */
    void (*on_row)(void *user, size_t row, size_t n_done);
    void *user;
};
/* Defaults, with the sampling that the model itself states where it does. */
ARTEL_API void artel_generate_options_default(struct artel_generate_options *o,
                                              const struct artel_mixture *m);

struct artel_prompt {
    char
        *text; /* for the chat template: JSON array of {"role", "content"}, or an object
                   * with "messages" and "tools"; or plain text */
    size_t n;  /* bytes */
    int raw;   /* TEXT is plain text that the model continues */
    size_t line; /* where it was read, from 1; 0: not from a file */
};

struct artel_answer {
    char *text; /* (n_text) valid UTF-8, ended; owned */
    size_t n_text;
    int32_t *ids; /* (n_ids) generated, the end token included; owned */
    size_t n_ids;
    size_t n_prompt_tokens;
    int expert;                /* that answered, ARTEL_BASE: none */
    const char *finish_reason; /* "stop", "length" or "stopped" (asked to) */
    size_t n_routers, n_experts;
    float *
        probabilities; /* (n_routers, n_experts), NULL where nothing was routed; owned */
    size_t layers_agreeing; /* routers whose first choice is EXPERT */
    /* 1: every token was routed on its own. PROBABILITIES are gates averaged over the
     * answer's tokens, EXPERT has the largest average, LAYERS_AGREEING says nothing. */
    int per_token;
    /* 1: one router read the base alone, or the characters of the question, and decided
     * before the experts were asked; LAYERS_AGREEING says nothing. */
    int from_base;
    int merged; /* 1: with merged weights, which were formed during the prefill */
    double prefill_seconds, decode_seconds;
};
ARTEL_API void artel_answer_release(struct artel_answer *a);

/* A conversation of up to N_CONTEXT tokens; 0: what the model was made for, at most 4096. */
ARTEL_API int artel_session_open(struct artel_session **out,
                                 const struct artel_mixture *m, size_t n_context,
                                 struct artel_error *err);
ARTEL_API void artel_session_close(struct artel_session *s); /* NULL is fine */
ARTEL_API void artel_session_reset(struct artel_session *s); /* forget the cache */

/* One answer. What the session's cache shares with the prompt is not computed again.
 * ARTEL_ELIMIT where the prompt does not fit the session. */
ARTEL_API int artel_generate(struct artel_session *s, struct artel_answer *out,
                             const struct artel_mixture *m,
                             const struct artel_prompt *prompt,
                             const struct artel_generate_options *o,
                             struct artel_error *err);

/* N prompts, several at a time; ANSWERS (n) are filled in order and all released on
 * failure. They do not depend on the number of threads. */
ARTEL_API int artel_generate_all(struct artel_answer *answers,
                                 const struct artel_mixture *m,
                                 const struct artel_prompt *prompts, size_t n,
                                 const struct artel_generate_options *o,
                                 struct artel_error *err);

/* JSON messages of one user turn TEXT, after a system turn where SYSTEM is not NULL. */
ARTEL_API int artel_prompt_user(struct artel_prompt *out, const char *text,
                                const char *system, struct artel_error *err);

/* Prompts of a file: chat JSONL (anything the trainer reads; a last assistant turn is left
 * out), or text with one prompt a line. RAW: lines as they are. MAX_ROWS 0: all. */
ARTEL_API int artel_prompts_read(struct artel_prompt **out, size_t *n, const char *path,
                                 const char *system, int raw, size_t max_rows,
                                 struct artel_error *err);
ARTEL_API void artel_prompts_free(struct artel_prompt *prompts, size_t n);

/* ---- scoring ---- */

struct artel_score_options {
    int expert;        /* ARTEL_AUTO, ARTEL_BASE or an index */
    size_t max_rows;   /* of the file; 0: all */
    size_t cutoff_len; /* tokens of a row; 0: what the model was made for, never more */
    size_t skip_bad;   /* malformed rows passed over */
    const volatile sig_atomic_t *stopped;                 /* may be NULL */
    void (*on_rows)(void *user, size_t n_done, size_t n); /* or NULL; one at a time */
    void *user;
};
ARTEL_API void artel_score_options_default(struct artel_score_options *o);

struct artel_score_row {
    size_t line; /* in the file, from 1 */
    size_t prompt_tokens, answer_tokens;
    double nll; /* of the answer with its end-of-turn token, natural logarithm */
    int expert; /* that was used */
};
struct artel_score {
    struct artel_score_row *rows; /* (n_rows) in the order of the file; owned */
    size_t n_rows, n_dropped;     /* dropped: too long, or an empty answer */
    size_t answer_tokens;
    double nll, perplexity; /* perplexity: exp(nll / answer_tokens) */
    double seconds;
};
/* Negative log-likelihood of the answers in the data file at PATH, routed by the rows'
 * prompts where O->expert is ARTEL_AUTO. */
ARTEL_API int artel_score(struct artel_score *out, const struct artel_mixture *m,
                          const char *path, const struct artel_score_options *o,
                          struct artel_error *err);
ARTEL_API void artel_score_release(struct artel_score *s);

/* ---- evaluation ---- */

struct artel_eval_set {
    const char *name; /* of the domain */
    const char *path; /* rows to measure */
    const char
        *score; /* NULL or "loss": perplexity alone; else see artel_score_names() */
};
/* A model behind any endpoint that speaks OpenAI's chat completions rates answers. */
struct artel_judge_options {
    const char *url;       /* "https://host/v1", to which /chat/completions is added */
    const char *model;     /* as the endpoint names it */
    const char *key_env;   /* variable with the key, "OPENAI_API_KEY"; "none": no key */
    size_t ratings;        /* of each answer, 3 */
    size_t max_rows;       /* of each set; 0: every answer that was generated */
    size_t retries;        /* of one request that failed for a passing reason, 5 */
    size_t wait_ms;        /* before the first retry, then twice that and so on, 1000 */
    size_t timeout_s;      /* of one request, 120 */
    const char *keep_path; /* JSONL of ratings, read first; NULL: none are kept */
};
ARTEL_API void artel_judge_options_default(struct artel_judge_options *o);

struct artel_eval_options {
    const char *expert;  /* "auto", "base" or a name */
    size_t max_rows;     /* of each set; 0: all */
    size_t general_rows; /* of each general set; plain text: windows; 0: max_rows */
    size_t max_tokens;   /* of a generated answer, 256 */
    size_t cutoff_len; /* tokens of a row; 0: what the model was made for, never more */
    int generate;  /* 1: answers are generated and scored; 0: perplexity and routing */
    int base;      /* 1: a base alone stands before the first mixture over it */
    uint64_t seed; /* of the bootstrap's resamples, 1 */
    const struct artel_eval_set *sets; /* (n_sets); none: all that the mixtures name */
    size_t n_sets;
    /* (n_general) measured for base and all; NULL: all that the mixtures name */
    const struct artel_eval_set *general;
    size_t n_general;
    const char *keep; /* folder of results that are kept, and used again; NULL: none */
    const struct artel_judge_options *judge; /* NULL: none */
    struct artel_open_options open;
    const volatile sig_atomic_t *stopped; /* may be NULL */
    void (*on_note)(void *user,
                    const char *line); /* what is being measured; may be NULL */
    /* Of that, rows done; calls come one at a time. May be NULL. */
    void (*on_rows)(void *user, size_t n_done, size_t n);
    void *user;
};
ARTEL_API void artel_eval_options_default(struct artel_eval_options *o);
/* Name IDX of the ways to score an answer, NULL after the last. */
ARTEL_API const char *artel_score_names(size_t idx);

/*
 * Measure the mixtures at PATHS (n). *JSON is the text of {"methods": [METHOD, ...]}, each
 * base before its first mixture where O->base; null stands for what could not be measured,
 * scores are shares from 0 to 1; "settings" beside them are O's, as they were used. A METHOD:
 *
 *     name path base seed "moa", its folder, its model; a base is "base" and has no seed
 *     domains             {NAME: SET}
 *     general             {NAME: SET with "change" and "ci95": [low, high] against its base}
 *     routing_accuracy    of rows whose domain has an expert of its name
 *     confusion           {SET: {EXPERT: rows it was chosen for}}
 *     gate_entropy        mean over rows and routers, in nats
 *     identity_share      mean gate of all identity experts together, 0 where none
 *     routing             {SET: [[mean gate of each expert] for each router]}
 *     experts             [NAME], the order of those gates
 *     trainable_parameters tokens steps seconds      what it took
 *
 * A SET: "rows", "dropped", "perplexity", "answer_tokens", "score" with "score_name"; of
 * generated answers "score_rows", "bleu" (0 to 100), "rouge_l", "tokens_per_second", "json_valid",
 * "json_name", "judge" {"score" (0 to 10), "ratings", "missing" and a mean for each
 * quality}; of choices "acc" and "acc_norm"; of plain text "word_perplexity",
 * "byte_perplexity", "bits_per_byte"; where something routes "routing_accuracy",
 * "gate_entropy", "identity_share".
 */
ARTEL_API int artel_evaluate(char **json, const char *const *paths, size_t n,
                             const struct artel_eval_options *o,
                             struct artel_error *err);
/* That JSON as a table: KIND "text", "markdown" or "csv"; or "html", a page of its own with
 * plots, which also reads logs and descriptions in the folders that the methods' paths name,
 * as far as they are there. */
ARTEL_API int artel_eval_table(char **out, const char *json, const char *kind,
                               struct artel_error *err);

/* ---- looking at things ---- */

struct artel_inspect_options {
    const char
        *model; /* base for a dataset's token counts, an adapter's check, or a recipe
                 * instead of its own; or NULL */
    int verify; /* read every byte: digests in full, values finite, notes kept */
    size_t preview;    /* rows of a dataset shown with their loss mask */
    size_t cutoff_len; /* 0: no bound */
    size_t skip_bad;
};
/* *JSON describes a model, adapter (also a GGUF LoRA), mixture, recipe (a file .yaml or
 * .yml) or dataset: {"kind": ...}. Nothing is written or locked. O may be NULL. */
ARTEL_API int artel_inspect(char **json, const char *path,
                            const struct artel_inspect_options *o,
                            struct artel_error *err);

/* ---- converting ---- */

struct artel_convert_options {
    /* "gguf-lora" (a file for llama.cpp), "peft" (a folder); with the expert merged into
     * the base "gguf" (of a GGUF base) or "safetensors" (a Hugging Face folder) */
    const char *to;
    const char *model;  /* base of an adapter or LoRA file; NULL: the recorded one */
    const char *expert; /* of a mixture; NULL: the only one */
    const char *gates;  /* "math=0.7,law=0.3": their sum as one expert; or NULL */
    const char *type;   /* "f32", "f16", "bf16", for "gguf" also "q8_0". NULL: a LoRA in
                         * f32, a model as its base is (GGUF to safetensors: f16) */
    const char
        *measure;    /* data file: likelihood of its answers before and after a merge */
    size_t max_rows; /* of that file; 0: all */
    int force;       /* write over what is there, accept experts of another base */
    const volatile sig_atomic_t *stopped; /* of the measuring; may be NULL */
};
ARTEL_API void artel_convert_options_default(struct artel_convert_options *o);
/*
 * SOURCE (a PEFT folder, a mixture, a GGUF LoRA file; a bare model, to change its form) as
 * OUT, which is whole or not there. Tensor by tensor: a model need not fit into memory.
 * *JSON tells what became of it: "adapter", or for models "missing", "measured" and
 * "tensors" [{kind, from, to, tensors, update, error, kept}]: norms of the expert's change
 * and of the rounding relative to the weights', and the share of the change that is left
 * after it (blocks too coarse for it fall back to what they held). O may be NULL.
 * ARTEL_ECONFLICT: OUT is there. ARTEL_EUSAGE, forced too: OUT is or holds an input. */
ARTEL_API int artel_convert(char **json, const char *source, const char *out,
                            const struct artel_convert_options *o,
                            struct artel_error *err);

/* ---- serving ---- */

struct artel_serve_options {
    const char *host;       /* address to listen at, "127.0.0.1" */
    unsigned port;          /* 8080; 0: any that is free */
    const char *keys;       /* file with a key a line, NULL: no key is asked for */
    const char *admin_keys; /* for calls that change what is served; NULL: none is */
    const char *experts; /* folder below which adapters may be loaded; NULL: none may */
    const char *const *origins; /* (n_origins) of browsers that may call; "*": all */
    size_t n_origins;
    const char *const
        *hosts; /* (n_hosts) names that a request may give for this server */
    size_t n_hosts;
    const char *access_log; /* JSON lines: a path, "-" standard output, NULL: none */
    size_t seats;           /* answers at a time, 1 to 32; 16 */
    size_t queue;           /* requests that wait, 256 */
    size_t context;         /* tokens of a conversation; 0: the model's, at most 4096 */
    size_t cache_bytes;     /* of keys and values, 1 GiB */
    size_t max_body;        /* bytes of a request, 1 MiB */
    size_t max_connections; /* 512 */
    size_t max_choices;     /* n of a request, 16 */
    size_t max_tokens;      /* of an answer; 0: what the context leaves */
    double request_seconds; /* deadline of a request, 600; 0: none */
    double grace_seconds;   /* for answers under way once it was asked to stop, 30 */
    double threshold;       /* probability under which ... 0: none */
    const char *below;      /* ... "base" answers or the request is "refused" */
    int page;               /* 1: the web page at / */
    int strict;             /* 1: unknown fields of a request are refused */
    struct artel_open_options open;
    /* 1: finish what is under way and return; 2: return at once. */
    const volatile sig_atomic_t *stopped;
    const volatile sig_atomic_t *reopened; /* changed: open ACCESS_LOG anew; or NULL */
    void (*on_ready)(void *user, const char *url); /* it listens; may be NULL */
    void *user;
};
ARTEL_API void artel_serve_options_default(struct artel_serve_options *o);
/* Serve the mixture at PATH by OpenAI's API until O->stopped says otherwise.
 * ARTEL_ELIMIT SRV00 where the library was built without libmicrohttpd. */
ARTEL_API int artel_serve(const char *path, const struct artel_serve_options *o,
                          struct artel_error *err);

/* ---- training from a recipe ---- */

enum artel_event {
    ARTEL_STAGE,   /* a stage begins; message tells how */
    ARTEL_SKIPPED, /* a stage is up to date */
    ARTEL_STEP,    /* one optimizer step is done */
    ARTEL_EVAL,    /* loss is the validation loss */
    ARTEL_SAVED,   /* message is the path of a checkpoint */
    ARTEL_NOTE,    /* message, such as rows dropped */
    ARTEL_WARNING, /* message */
    ARTEL_DONE     /* a stage is complete; message is the path of its result */
};

struct artel_progress {
    enum artel_event event;
    const char *stage; /* "expert-math"; "" outside of stages */
    size_t stage_idx, n_stages;
    uint64_t step, n_steps;
    double epoch;
    double loss, router_loss, router_accuracy; /* router_*: 0 without a router */
    double learning_rate, grad_norm;
    double tokens_per_second;
    double seconds_left; /* of this stage; below 0: not known yet */
    const char *message; /* or NULL */
};

struct artel_train_options {
    void (*progress)(void *user, const struct artel_progress *p); /* may be NULL */
    void *user;
    const volatile sig_atomic_t *stopped; /* may be NULL; not 0: save and stop */
    size_t memory_bytes;                  /* 0: what the machine has */
    int changes; /* of settings since: 0 refuse, 1 safe ones may differ, 2 train anew */
    int must_resume;  /* ARTEL_ECONFLICT where there is nothing to continue */
    int force;        /* read adapters of another base */
    int nonfinite;    /* use a base with weights that are NaN or infinite */
    const char *only; /* one stage, or NULL */
    /* For artel_add() alone; MODEL and SCORE_ROWS for artel_remove() too. */
    const char *valid, *test, *score; /* of the new domain; may be NULL */
    const char *model;                /* the base, where it has moved; may be NULL */
    size_t max_rows;                  /* of the new domain's text; 0: all */
    size_t score_rows; /* of each other domain, answered for its score; 0: none; 20 */
    int joint;         /* old experts move too */
};
ARTEL_API void artel_train_options_default(struct artel_train_options *o);

/* Carry out the recipe at PATH with OVERRIDES ("train.seed=2", n): every stage that is not
 * up to date. *OUTPUT (may be NULL) is the recipe's output folder. ARTEL_ESTOPPED: asked
 * to stop, all is saved; the same call continues. O may be NULL. */
ARTEL_API int artel_train(char **output, const char *path, const char *const *overrides,
                          size_t n, const struct artel_train_options *o,
                          struct artel_error *err);

/* A new domain NAME for the mixture at PATH: trained on DATA, or brought as the PEFT folder
 * ADAPTER (may be NULL) with DATA for the router; where no router is taught (arrow, single)
 * DATA may be NULL beside ADAPTER, or be that folder. *JSON reports the cost beside training
 * all anew, and proves what did not change: digests of the old experts' files, and on the old
 * domains' rows perplexity, routing (null: always on) and the score of SCORE_ROWS answers
 * before and after, with a paired bootstrap's middle 95 %. */
ARTEL_API int artel_add(char **json, const char *path, const char *name,
                        const char *adapter, const char *data,
                        const struct artel_train_options *o, struct artel_error *err);
/*
 * Take a domain out of the mixture at PATH: its expert and its row of every router.
 * *JSON is as of artel_add(), of the domains that stay, with "removed" for "name"; they are
 * measured before anything is written: stopped until then, the mixture is as it was.
 * ARTEL_EUSAGE for a name that it has not (the nearest is named) and for the last domain.
 */
ARTEL_API int artel_remove(char **json, const char *path, const char *name,
                           const struct artel_train_options *o,
                           struct artel_error *err);

/* ---- training step by step, from rows in memory ---- */

/* A mixture without experts over MODEL (borrowed), whose weights are made ready to train
 * with: nothing may compute with MODEL meanwhile. METHOD is "single", "mixed" or "moa",
 * PRECISION as in struct artel_open_options. */
ARTEL_API int artel_mixture_new(struct artel_mixture **out, struct artel_model *model,
                                const char *method, const char *precision,
                                struct artel_error *err);

struct artel_expert_options {
    size_t rank; /* 8 */
    float alpha; /* 16; the LoRA's scale is alpha / rank */
    float dropout;
    const char *linears; /* NULL: all; else "q_proj,v_proj" and so on */
    uint64_t seed;
};
ARTEL_API void artel_expert_options_default(struct artel_expert_options *o);
/* A fresh expert, which changes no answer yet. Its index is the number of experts before.
 * ARTEL_ECONFLICT while a session or a trainer of M is open, for it is laid out for the
 * experts that there were. */
ARTEL_API int artel_mixture_add(struct artel_mixture *m, const char *name,
                                const struct artel_expert_options *o,
                                struct artel_error *err);
/* FOLDER gets mixture.json, routers, and a PEFT adapter folder an expert. */
ARTEL_API int artel_mixture_save(const struct artel_mixture *m, const char *folder,
                                 struct artel_error *err);

struct artel_trainer_options {
    float learning_rate;                /* of experts, 2e-4 */
    float router_learning_rate;         /* 1e-2 */
    float router_loss;                  /* weight of the routers' cross entropy, 0.1 */
    float weight_decay;                 /* 0 */
    float max_grad_norm;                /* 1; 0: no clipping */
    const char *schedule;               /* "constant", "linear", "cosine" */
    uint64_t warmup_steps, total_steps; /* of the schedule */
    int train_routers;                  /* 1 where the method has routers */
    size_t max_row_tokens;              /* longest row, 1024; the model's at most */
    uint64_t seed;
};
ARTEL_API void artel_trainer_options_default(struct artel_trainer_options *o);

/* M came from artel_mixture_new(). */
ARTEL_API int artel_trainer_open(struct artel_trainer **out, struct artel_mixture *m,
                                 const struct artel_trainer_options *o,
                                 struct artel_error *err);
ARTEL_API void artel_trainer_close(struct artel_trainer *t); /* NULL is fine */

/* One row: a prompt and the answer that carries the loss. */
struct artel_row {
    const int32_t *ids; /* (n) */
    size_t n, n_prompt; /* tokens in all, and before the answer */
    int expert;         /* that learns from it; what the routers are to choose */
};
struct artel_step {
    uint64_t step;      /* steps done, this one included */
    double loss;        /* nll an answer token, before the update */
    double router_loss; /* mean cross entropy, or 0 */
    double grad_norm;   /* before clipping */
    double learning_rate;
    double seconds;
};
/* One optimizer step over ROWS (n). ARTEL_ENONFINITE: nothing has been updated. */
ARTEL_API int artel_trainer_step(struct artel_trainer *t, struct artel_step *out,
                                 const struct artel_row *rows, size_t n,
                                 struct artel_error *err);

#ifdef __cplusplus
}
#endif
#endif
