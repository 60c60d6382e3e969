/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A GGUF LoRA file as JSON: what it tells of itself and of its base, and with the base at
 * hand the same as of any other adapter.
 */
#include "plan/api_inspect.h"

#include "base/error.h"
#include "eval/opened.h"
#include "files/gguf.h"
#include "save/gguf_lora.h"

/* A text of the file under KEY; what is not there is left out. */
static void show_text(json_t *o, const char *key, const struct gguf *g,
                      const char *of_file)
{
    const struct gguf_value v = gguf_get(g, of_file);
    char shown[640];

    if (v.kind == GGUF_STRING)
        json_object_set_new(
            o, key, json_string(escape_text(shown, sizeof(shown), v.text, v.length)));
}

static json_t *formats_json(const struct gguf *g)
{
    json_t *const out = json_object();

    for (size_t i = 0; i < gguf_count(g); i++) {
        const char *const name = dtype_name(gguf_at(g, i)->dtype);
        const json_int_t n = json_integer_value(json_object_get(out, name));

        json_object_set_new(out, name, json_integer(n + 1));
    }
    return out;
}

/* As inspect_expert_json() has it of a whole expert. */
static json_t *sizes_json(const char *name, const struct gguf_lora_sizes *s)
{
    json_t *const sites = json_array();

    for (int i = 0; i < N_SITES; i++)
        if (s->sites[i])
            json_array_append_new(sites, json_string(site_name((enum site)i)));
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:o}", "name", name, "kind",
                     expert_kind_name(EXPERT_LORA), "parameters",
                     (json_int_t)s->n_params, "layers", (json_int_t)s->n_layers,
                     "smallest_rank", (json_int_t)s->smallest_rank, "largest_rank",
                     (json_int_t)s->largest_rank, "linears", sites);
}

static int tell_expert(json_t *root, const struct gguf *g, const char *name,
                       const char *base, struct artel_error *err)
{
    struct artel_model *m = NULL;
    struct expert e = {0};
    int rc = model_open(&m, base, err);

    if (rc == 0)
        rc = gguf_lora_read(&e, name, g, &m->weights->config, m->base_digest, err);
    if (rc == 0)
        json_object_set_new(root, "expert", inspect_expert_json(&e));
    expert_release(&e);
    model_close(m);
    return rc;
}

static int tell(json_t *root, const struct gguf *g, const char *name,
                const struct artel_inspect_options *o, struct artel_error *err)
{
    json_t *const base = json_object();
    struct gguf_lora_sizes sizes;
    double alpha = 0.0;
    int rc = gguf_lora_sizes(&sizes, g, err);

    json_object_set_new(root, "kind", json_string("adapter"));
    json_object_set_new(root, "form", json_string("gguf-lora"));
    json_object_set_new(root, "base", base);
    if (rc == 0)
        rc = gguf_want_float(g, "adapter.lora.alpha", &alpha, err);
    if (rc < 0)
        return rc;
    show_text(base, "architecture", g, "general.architecture");
    show_text(base, "name", g, "general.base_model.0.name");
    show_text(base, "digest", g, "artel.base_digest");
    json_object_set_new(root, "alpha", json_real(alpha));
    json_object_set_new(root, "formats", formats_json(g));
    json_object_set_new(root, "file_bytes", json_integer((json_int_t)gguf_bytes(g)));
    if (o->model) {
        rc = tell_expert(root, g, name, o->model, err);
    } else {
        json_object_set_new(root, "expert", sizes_json(name, &sizes));
        json_object_set_new(root, "note",
                            json_string("such a file does not say where its base is: "
                                        "name it with --model and the tensors are "
                                        "checked too"));
    }
    return rc;
}

int inspect_gguf_lora(json_t *root, const char *path, const struct gguf *g,
                      const struct artel_inspect_options *o, struct artel_error *err)
{
    char name[EXPERT_NAME_MAX + 1];
    int rc = 0;

    if (!gguf_lora_name(name, g))
        opened_expert_name(name, path);
    if (o->verify && !o->model)
        rc = error_set(err, ARTEL_EUSAGE, "USE08", NULL,
                       "this is a LoRA: name its base with --model");
    if (rc == 0)
        rc = tell(root, g, name, o, err);
    if (rc == 0 && o->verify)
        json_object_set_new(root, "verified", json_true());
    return rc < 0 ? error_in(err, rc, path) : 0;
}
