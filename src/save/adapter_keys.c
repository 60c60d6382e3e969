/* SPDX-License-Identifier: Apache-2.0 */
/*
 *     [base_model.model.][model.]layers.N.SITE.lora_A[.ADAPTER].weight
 *
 * Anything that is no half of a LoRA would change what the model computes, so
 * it is refused by its name rather than passed over.
 */
#include "save/adapter_keys.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static const struct {
    const char *part, *what;
} features[] = {
    {"lora_magnitude_vector", "a magnitude vector (DoRA)"},
    {"lora_embedding_", "a LoRA on an embedding"},
    {"trainable_tokens", "trained tokens"},
    {".lora_A.bias", "a trained bias"},
    {".lora_B.bias", "a trained bias"},
    {"modules_to_save", "a module trained as a whole"},
    {".base_layer.", "a copy of a base weight"},
    {"lm_head.lora_", "a LoRA on the output head"},
    {"embed_tokens.lora_", "a LoRA on an embedding"},
};

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), k = strlen(end);

    return n >= k && !strcmp(text + n - k, end);
}

static int refuse(const char *key, const char *what, struct artel_error *err)
{
    char shown[160];

    return error_set(err, ARTEL_EFORMAT, "ADP12",
                     escape_text(shown, sizeof(shown), key, strlen(key)),
                     "%s is not supported", what);
}

static int refuse_feature(const char *key, struct artel_error *err)
{
    for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++)
        if (strstr(key, features[i].part))
            return refuse(key, features[i].what, err);
    if (ends_with(key, ".bias"))
        return refuse(key, "a trained bias", err);
    if (ends_with(key, ".weight") && !strstr(key, "lora_"))
        return refuse(key, "a weight trained as a whole", err);
    return 0;
}

static const char *skip(const char *key, const char *prefix)
{
    const size_t n = strlen(prefix);

    return strncmp(key, prefix, n) ? key : key + n;
}

/* The number at *AT, which moves past it: false for "", "03" and more than 6 digits. */
static bool parse_layer(size_t *layer, const char **at)
{
    const char *p = *at;

    *layer = 0;
    while (isdigit((unsigned char)*p) && p - *at < 7)
        *layer = *layer * 10 + (size_t)(*p++ - '0');
    if (p == *at || p - *at > 6 || (**at == '0' && p - *at > 1))
        return false;
    *at = p;
    return true;
}

/* ".lora_A.weight" or ".lora_A.NAME.weight" */
static bool parse_half(struct adapter_key *out, const char *p)
{
    const char *end;

    if (strncmp(p, ".lora_", 6) != 0 || (p[6] != 'A' && p[6] != 'B') || p[7] != '.')
        return false;
    out->half = p[6] == 'B';
    p += 8;
    if (!strcmp(p, "weight"))
        return true;
    if (!ends_with(p, ".weight"))
        return false;
    end = p + strlen(p) - strlen(".weight");
    out->adapter = p;
    out->n_adapter = (size_t)(end - p);
    return end > p;
}

int adapter_key_parse(struct adapter_key *out, const char *key, size_t n_layers,
                      struct artel_error *err)
{
    const char *path = skip(skip(key, "base_model.model."), "model.");
    const char *p = skip(path, "layers.");
    int rc = refuse_feature(key, err);

    *out = (struct adapter_key){0};
    if (rc < 0)
        return rc;
    if (p == path || !parse_layer(&out->layer, &p) || *p++ != '.' ||
        out->layer >= n_layers)
        return 0;
    for (int s = 0; s < N_SITES; s++) {
        const char *rest = skip(p, site_module((enum site)s));

        out->site = (enum site)s;
        if (rest != p && parse_half(out, rest))
            return 1;
    }
    return 0;
}
