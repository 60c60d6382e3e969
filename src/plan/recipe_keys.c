/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of a recipe's keys, and the search for what a misspelt one meant.
 *
 * Keys of train and lora may also stand at the top level, as LLaMA-Factory's
 * flat files have them.
 */
#include "plan/recipe_keys.h"

#include <string.h>
#include <strings.h>

#define IN_TOP(f)       offsetof(struct recipe, f)
#define IN_LORA(f)      offsetof(struct lora_options, f)
#define IN_DOMAIN(f)    offsetof(struct recipe_domain, f)
#define IN_TRAIN(f)     offsetof(struct recipe_train, f)
#define IN_ROUTER(f)    offsetof(struct recipe_router, f)
#define IN_SLIM(f)      offsetof(struct recipe_slim, f)
#define IN_UNIVERSAL(f) offsetof(struct recipe_universal, f)
#define IN_MIXLORA(f)   offsetof(struct recipe_mixlora, f)
#define IN_MODULA(f)    offsetof(struct recipe_modula, f)

static const struct key_choice schedules[] = {
    {"cosine", SCHEDULE_COSINE},
    {"linear", SCHEDULE_LINEAR},
    {"constant", SCHEDULE_CONSTANT},
    {"constant_with_warmup", SCHEDULE_CONSTANT},
    {NULL, 0}};
static const struct key_choice precisions[] = {
    {"auto", RECIPE_AUTO}, {"fp32", RECIPE_FP32}, {"bf16", RECIPE_BF16}, {NULL, 0}};
static const struct key_choice memories[] = {{"auto", MEMORY_AUTO},
                                             {"keep", MEMORY_KEEP},
                                             {"recompute", MEMORY_RECOMPUTE},
                                             {"quantised", MEMORY_QUANTISED},
                                             {NULL, 0}};
static const struct key_choice selectors[] = {
    {"last", SELECT_LAST}, {"vote", SELECT_VOTE}, {NULL, 0}};
static const struct key_choice pools[] = {
    {"mean", POOL_MEAN}, {"last", POOL_LAST}, {NULL, 0}};
static const struct key_choice labels[] = {
    {"domain", LABEL_DOMAIN}, {"argmax", LABEL_ARGMAX}, {NULL, 0}};
static const struct key_choice classifiers[] = {
    {"hidden", CLASSIFY_HIDDEN}, {"ngrams", CLASSIFY_NGRAMS}, {NULL, 0}};
static const struct key_choice inits[] = {
    {"stage1", INIT_STAGE1}, {"fresh", INIT_FRESH}, {NULL, 0}};

static const struct key_choice distances[] = {
    {"mean", DISTANCE_MEAN}, {"max", DISTANCE_MAX}, {NULL, 0}};
static const struct key_choice masks[] = {
    {"fixed", MASK_FIXED}, {"expected", MASK_EXPECTED}, {"none", MASK_NONE}, {NULL, 0}};
/* Of a KEY_COUNT: names that some numbers have. */
static const struct key_choice togethers[] = {
    {"auto", 0}, {"false", 1}, {"true", TOGETHER_ALL}, {NULL, 0}};

#define MANY 1e9

/* clang-format off */
static const struct recipe_key keys[] = {
    {"", "model", KEY_PATH, IN_TOP(model), 0, 0, 0, NULL},
    {"", "output", KEY_PATH, IN_TOP(output), 0, 0, 0, NULL},
    {"", "method", KEY_METHODS, 0, 0, 0, 0, NULL},
    {"", "lora", KEY_SECTION, 0, 0, 0, 0, NULL},
    {"", "domains", KEY_DOMAINS, 0, 0, 0, 0, NULL},
    {"", "universal", KEY_UNIVERSAL, 0, 0, 0, 0, NULL},
    {"", "general", KEY_GENERAL, 0, 0, 0, 0, NULL},
    {"", "train", KEY_SECTION, 0, 0, 0, 0, NULL},
    {"", "router", KEY_SECTION, 0, 0, 0, 0, NULL},
    {"", "slim", KEY_SECTION, 0, 0, 0, 0, NULL},
    {"", "mixlora", KEY_SECTION, 0, 0, 0, 0, NULL},
    {"", "modula", KEY_SECTION, 0, 0, 0, 0, NULL},
    {"", "general_rows", KEY_COUNT, IN_TOP(general_rows), 0, MANY, 0, NULL},
    {"", "max_rows", KEY_COUNT, IN_TOP(max_rows), 0, MANY, 0, NULL},
    {"", "store_sample", KEY_COUNT, IN_TOP(store_sample), 0, MANY, 0, NULL},

    {"lora", "rank", KEY_COUNT, IN_LORA(rank), 1, EXPERT_MAX_RANK, 0, NULL},
    {"lora", "alpha", KEY_FLOAT, IN_LORA(alpha), 0, 1e6, 0, NULL},
    {"lora", "dropout", KEY_FLOAT, IN_LORA(dropout), 0, 1, KEY_BELOW, NULL},
    {"lora", "use_rslora", KEY_BOOL, IN_LORA(use_rslora), 0, 0, 0, NULL},
    {"lora", "target", KEY_TARGETS, IN_LORA(targets), 0, 0, 0, NULL},

    {"domain", "train", KEY_PATH, IN_DOMAIN(train), 0, 0, 0, NULL},
    {"domain", "valid", KEY_PATH, IN_DOMAIN(valid), 0, 0, 0, NULL},
    {"domain", "test", KEY_PATH, IN_DOMAIN(test), 0, 0, 0, NULL},
    {"domain", "score", KEY_TEXT, IN_DOMAIN(score), 0, 0, 0, NULL},
    {"domain", "max_rows", KEY_COUNT, IN_DOMAIN(max_rows), 0, MANY, 0, NULL},
    {"domain", "adapter", KEY_PATH, IN_DOMAIN(adapter), 0, 0, 0, NULL},

    {"universal", "train", KEY_PATH, IN_UNIVERSAL(text.train), 0, 0, 0, NULL},
    {"universal", "valid", KEY_PATH, IN_UNIVERSAL(text.valid), 0, 0, 0, NULL},
    {"universal", "max_rows", KEY_COUNT, IN_UNIVERSAL(text.max_rows), 0, MANY, 0, NULL},
    {"universal", "rank", KEY_COUNT, IN_UNIVERSAL(rank), 1, EXPERT_MAX_RANK, 0, NULL},
    {"universal", "alpha", KEY_FLOAT, IN_UNIVERSAL(alpha), 0, 1e6, 0, NULL},
    {"universal", "keep", KEY_BOOL, IN_UNIVERSAL(keep), 0, 0, 0, NULL},

    {"train", "learning_rate", KEY_REAL, IN_TRAIN(learning_rate), 0, 1e4, 0, NULL},
    {"train", "epochs", KEY_REAL, IN_TRAIN(epochs), 0, 1e4, KEY_ABOVE, NULL},
    {"train", "max_steps", KEY_COUNT, IN_TRAIN(max_steps), 0, MANY, 0, NULL},
    {"train", "batch_tokens", KEY_COUNT, IN_TRAIN(batch_tokens), 1, 1 << 24, 0, NULL},
    {"train", "batch_size", KEY_COUNT, IN_TRAIN(batch_size), 1, 65536, 0, NULL},
    {"train", "gradient_accumulation_steps", KEY_COUNT, IN_TRAIN(accumulation), 1, 65536, 0, NULL},
    {"train", "cutoff_len", KEY_COUNT, IN_TRAIN(cutoff_len), 2, 1 << 20, 0, NULL},
    {"train", "lr_scheduler", KEY_CHOICE, IN_TRAIN(schedule), 0, 0, 0, schedules},
    {"train", "warmup_ratio", KEY_REAL, IN_TRAIN(warmup_ratio), 0, 1, KEY_BELOW, NULL},
    {"train", "warmup_steps", KEY_COUNT, IN_TRAIN(warmup_steps), 0, MANY, 0, NULL},
    {"train", "weight_decay", KEY_REAL, IN_TRAIN(weight_decay), 0, 100, 0, NULL},
    {"train", "adam_beta1", KEY_REAL, IN_TRAIN(beta1), 0, 1, KEY_BELOW, NULL},
    {"train", "adam_beta2", KEY_REAL, IN_TRAIN(beta2), 0, 1, KEY_BELOW, NULL},
    {"train", "adam_epsilon", KEY_REAL, IN_TRAIN(eps), 0, 1, KEY_ABOVE, NULL},
    {"train", "max_grad_norm", KEY_REAL, IN_TRAIN(max_grad_norm), 0, 1e9, 0, NULL},
    {"train", "seed", KEY_COUNT, IN_TRAIN(seed), 0, 9007199254740992.0, 0, NULL},
    {"train", "save_steps", KEY_COUNT, IN_TRAIN(save_steps), 0, MANY, 0, NULL},
    {"train", "save_total_limit", KEY_COUNT, IN_TRAIN(save_total_limit), 1, 10000, 0, NULL},
    {"train", "eval_steps", KEY_COUNT, IN_TRAIN(eval_steps), 0, MANY, 0, NULL},
    {"train", "early_stopping_patience", KEY_COUNT, IN_TRAIN(patience), 0, MANY, 0, NULL},
    {"train", "load_best_model_at_end", KEY_BOOL, IN_TRAIN(load_best), 0, 0, 0, NULL},
    {"train", "val_size", KEY_REAL, IN_TRAIN(val_size), 0, MANY, 0, NULL},
    {"train", "shuffle", KEY_BOOL, IN_TRAIN(shuffle), 0, 0, 0, NULL},
    {"train", "packing", KEY_BOOL, IN_TRAIN(packing), 0, 0, 0, NULL},
    {"train", "precision", KEY_CHOICE, IN_TRAIN(precision), 0, 0, 0, precisions},
    {"train", "memory", KEY_CHOICE, IN_TRAIN(memory), 0, 0, 0, memories},
    {"train", "skip_bad", KEY_COUNT, IN_TRAIN(skip_bad), 0, MANY, 0, NULL},
    {"train", "nan_steps", KEY_COUNT, IN_TRAIN(nan_steps), 0, MANY, 0, NULL},
    {"train", "spike_z", KEY_REAL, IN_TRAIN(spike_z), 0, 1e6, 0, NULL},
    {"train", "together", KEY_COUNT, IN_TRAIN(together), 1, TOGETHER_ALL, 0, togethers},
    {"train", "logging_steps", KEY_COUNT, IN_TRAIN(logging_steps), 1, MANY, 0, NULL},
    {"train", "tensorboard", KEY_BOOL, IN_TRAIN(tensorboard), 0, 0, 0, NULL},

    {"router", "eta", KEY_REAL, IN_ROUTER(eta), 0, 1e4, 0, NULL},
    {"router", "learning_rate", KEY_REAL, IN_ROUTER(learning_rate), 0, 1e4, 0, NULL},
    {"router", "selector", KEY_CHOICE, IN_ROUTER(selector), 0, 0, 0, selectors},
    {"router", "pool", KEY_CHOICE, IN_ROUTER(pool), 0, 0, 0, pools},
    {"router", "router_only", KEY_BOOL, IN_ROUTER(router_only), 0, 0, 0, NULL},
    {"router", "detach_router_input", KEY_BOOL, IN_ROUTER(detach_router_input), 0, 0, 0, NULL},
    {"router", "label", KEY_CHOICE, IN_ROUTER(label), 0, 0, 0, labels},
    {"router", "init", KEY_CHOICE, IN_ROUTER(init), 0, 0, 0, inits},
    {"router", "freeze_old", KEY_BOOL, IN_ROUTER(freeze_old), 0, 0, 0, NULL},
    {"router", "epochs", KEY_REAL, IN_ROUTER(epochs), 0, 1e4, 0, NULL},
    {"router", "refresh_learning_rate", KEY_REAL, IN_ROUTER(refresh_rate), 0, 1e4, 0, NULL},
    {"router", "refresh", KEY_REAL, IN_ROUTER(refresh), 0, 1e4, 0, NULL},
    {"router", "max_steps", KEY_COUNT, IN_ROUTER(max_steps), 0, MANY, 0, NULL},
    {"router", "init_std", KEY_REAL, IN_ROUTER(init_std), 0, 100, 0, NULL},
    {"router", "token_learning_rate", KEY_REAL, IN_ROUTER(token_rate), 0, 1e4, 0, NULL},
    {"router", "experts", KEY_COUNT, IN_ROUTER(experts), 0, 1024, 0, NULL},
    {"router", "top_k", KEY_COUNT, IN_ROUTER(top_k), 0, 1024, 0, NULL},
    {"router", "temperature", KEY_REAL, IN_ROUTER(temperature), 1e-6, 1e6, 0, NULL},
    {"router", "ridge_layers", KEY_LAYERS, IN_ROUTER(ridge_layers), 0, 0, 0, NULL},
    {"router", "ridge_lambda", KEY_REAL, IN_ROUTER(ridge_lambda), 0, 1e6, KEY_ABOVE, NULL},
    {"router", "classifier_lambda", KEY_REAL, IN_ROUTER(classifier_lambda), 0, 1e6, KEY_ABOVE, NULL},
    {"router", "classifier", KEY_CHOICE, IN_ROUTER(classifier), 0, 0, 0, classifiers},
    {"router", "ngram_min", KEY_COUNT, IN_ROUTER(ngrams.min), 1, NGRAM_MOST, 0, NULL},
    {"router", "ngram_max", KEY_COUNT, IN_ROUTER(ngrams.max), 1, NGRAM_MOST, 0, NULL},
    {"router", "ngram_buckets", KEY_COUNT, IN_ROUTER(ngrams.buckets), NGRAM_BUCKETS_LEAST, NGRAM_BUCKETS_MOST, 0, NULL},
    {"router", "ngram_lowercase", KEY_BOOL, IN_ROUTER(ngrams.lowercase), 0, 0, 0, NULL},
    {"router", "cache_mib", KEY_COUNT, IN_ROUTER(cache_mib), 0, MANY, 0, NULL},

    {"slim", "identities", KEY_COUNT, IN_SLIM(identities), 0, 1024, 0, NULL},
    {"slim", "top_k", KEY_COUNT, IN_SLIM(top_k), 1, 1024, 0, NULL},
    {"slim", "clusters", KEY_COUNT, IN_SLIM(clusters), 1, CLUSTERS_MOST, 0, NULL},
    {"slim", "momentum", KEY_REAL, IN_SLIM(momentum), 0, 1, KEY_BELOW, NULL},
    {"slim", "distance", KEY_CHOICE, IN_SLIM(distance), 0, 0, 0, distances},
    {"slim", "beta", KEY_REAL, IN_SLIM(beta), 0, 1e6, 0, NULL},
    {"slim", "drop", KEY_REAL, IN_SLIM(drop), 0, 0.99, 0, NULL},
    {"slim", "rescale", KEY_BOOL, IN_SLIM(rescale), 0, 0, 0, NULL},
    {"slim", "mask", KEY_CHOICE, IN_SLIM(mask), 0, 0, 0, masks},
    {"slim", "l1", KEY_REAL, IN_SLIM(l1), 0, 1e6, 0, NULL},

    {"mixlora", "top_k", KEY_COUNT, IN_MIXLORA(top_k), 1, 1024, 0, NULL},
    {"mixlora", "top_p", KEY_REAL, IN_MIXLORA(top_p), 0, 1, 0, NULL},
    {"mixlora", "balance", KEY_REAL, IN_MIXLORA(balance), 0, 1e4, 0, NULL},

    {"modula", "residual", KEY_BOOL, IN_MODULA(residual), 0, 0, 0, NULL},
};

/* Other spellings: what others call it, and where it may stand. */
static const struct alias {
    const char *section, *name; /* as written */
    const char *key;            /* ours, in that section, or in any that the top level may hold */
} aliases[] = {
    {"", "model_name_or_path", "model"}, {"", "output_dir", "output"},
    {"", "methods", "method"}, {"", "max_samples", "max_rows"},
    {"", "lora_rank", "rank"}, {"", "lora_r", "rank"}, {"", "lora_alpha", "alpha"},
    {"", "lora_dropout", "dropout"}, {"", "lora_target", "target"},
    {"", "target_modules", "target"},
    {"lora", "r", "rank"}, {"lora", "lora_rank", "rank"}, {"lora", "lora_r", "rank"},
    {"lora", "lora_alpha", "alpha"}, {"lora", "lora_dropout", "dropout"},
    {"lora", "lora_target", "target"}, {"lora", "target_modules", "target"},
    {"lora", "targets", "target"},
    {"domain", "max_samples", "max_rows"}, {"universal", "max_samples", "max_rows"},
    {"train", "num_train_epochs", "epochs"}, {"train", "num_epochs", "epochs"},
    {"train", "per_device_train_batch_size", "batch_size"},
    {"train", "lr_scheduler_type", "lr_scheduler"}, {"train", "lr", "learning_rate"},
    {"train", "beta1", "adam_beta1"}, {"train", "beta2", "adam_beta2"},
    {"train", "eps", "adam_epsilon"}, {"train", "max_seq_length", "cutoff_len"},
    {"train", "max_length", "cutoff_len"},
    {"train", "accumulation", "gradient_accumulation_steps"},
    {"router", "lr", "learning_rate"}, {"router", "num_train_epochs", "epochs"},
};
/* clang-format on */

#define N_KEYS    (sizeof(keys) / sizeof(keys[0]))
#define N_ALIASES (sizeof(aliases) / sizeof(aliases[0]))

size_t recipe_key_count(void)
{
    return N_KEYS;
}

const struct recipe_key *recipe_key_at(size_t i)
{
    return &keys[i];
}

static const struct recipe_key *exactly(const char *section, const char *name)
{
    for (size_t i = 0; i < N_KEYS; i++)
        if (!strcmp(keys[i].section, section) && !strcmp(keys[i].name, name))
            return &keys[i];
    for (size_t i = 0; i < N_ALIASES; i++)
        if (!strcmp(aliases[i].section, section) && !strcmp(aliases[i].name, name))
            return recipe_key_find(section, aliases[i].key);
    return NULL;
}

const struct recipe_key *recipe_key_find(const char *section, const char *name)
{
    const struct recipe_key *key = exactly(section, name);

    /* The flat form; aliases of the top level lead here with our own names. */
    if (!key && !*section)
        key = exactly("train", name);
    if (!key && !*section)
        key = exactly("lora", name);
    return key;
}

/* Edits (insert, delete, replace, swap of neighbours) from A to B, at most LIMIT + 1. */
static size_t distance(const char *a, const char *b, size_t limit)
{
    enum { LONGEST = 64 };
    size_t row[3][LONGEST + 1];
    const size_t n = strlen(a), m = strlen(b);

    if (n > LONGEST || m > LONGEST || (n > m ? n - m : m - n) > limit)
        return limit + 1;
    for (size_t j = 0; j <= m; j++)
        row[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *now = row[i % 3];
        const size_t *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];

        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);

            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[n % 3][m];
}

struct nearest {
    const char *name;
    size_t edits;
};

static void consider(struct nearest *best, const char *name, const char *known)
{
    const size_t n = strlen(name);
    const size_t limit = n < 5 ? 1 : n < 9 ? 2 : n / 3;
    const size_t edits = distance(name, known, limit);

    if (edits <= limit && edits < best->edits) {
        best->name = known;
        best->edits = edits;
    }
}

const char *recipe_key_nearest(const char *section, const char *name)
{
    struct nearest best = {NULL, (size_t)-1};

    for (size_t i = 0; i < N_KEYS; i++)
        if (!strcmp(keys[i].section, section) ||
            (!*section && !strcmp(keys[i].section, "train")))
            consider(&best, name, keys[i].name);
    for (size_t i = 0; i < N_ALIASES; i++)
        if (!strcmp(aliases[i].section, section) ||
            (!*section && !strcmp(aliases[i].section, "train")))
            consider(&best, name, aliases[i].name);
    return best.name;
}

const char *nearest_name(const char *name, const char *const *names, size_t n)
{
    struct nearest best = {NULL, (size_t)-1};

    for (size_t i = 0; i < n; i++)
        consider(&best, name, names[i]);
    return best.name;
}
