/* SPDX-License-Identifier: Apache-2.0 */
/*
 * artel convert SOURCE OUT: an expert as another program reads it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/report.h"
#include "cli/signals.h"

static void print_gates(const json_t *gates)
{
    const char *name;
    const json_t *gate;
    const char *between = "";

    json_object_foreach((json_t *)(size_t)gates, name, gate)
    {
        printf("%s%s", between, name);
        if (json_number_value(gate) != 1.0)
            printf(" x %g", json_number_value(gate));
        between = " + ";
    }
}

static void print_adapter(const json_t *a)
{
    printf("%s, alpha %g, %lld linears", json_string_value(json_object_get(a, "type")),
           json_number_value(json_object_get(a, "alpha")),
           (long long)json_integer_value(json_object_get(a, "linears")));
    if (json_integer_value(json_object_get(a, "folded")))
        printf("; %lld of another alpha have theirs multiplied into lora_b",
               (long long)json_integer_value(json_object_get(a, "folded")));
    printf("%s\n", json_is_true(json_object_get(a, "exact")) ? "; no bit is lost" : "");
}

static void print_tensors(const json_t *tensors)
{
    size_t i;
    const json_t *k;

    if (json_array_size(tensors))
        printf("%-10s %8s %-6s    %-6s %12s %12s %8s\n", "kind", "tensors", "from",
               "to", "update", "rounding", "kept");
    json_array_foreach(tensors, i, k)
    {
        printf("%-10s %8lld %-6s -> %-6s %12.3e %12.3e",
               json_string_value(json_object_get(k, "kind")),
               (long long)json_integer_value(json_object_get(k, "tensors")),
               json_string_value(json_object_get(k, "from")),
               json_string_value(json_object_get(k, "to")),
               json_number_value(json_object_get(k, "update")),
               json_number_value(json_object_get(k, "error")));
        if (json_object_get(k, "kept"))
            printf(" %6.1f %%", 100.0 * json_number_value(json_object_get(k, "kept")));
        printf("\n");
    }
}

/* Coarse blocks fall back to what they held and swallow the expert: the reader must know. */
static void warn_rounding(const json_t *tensors)
{
    double least = 1.0;
    size_t i;
    const json_t *k;

    json_array_foreach(tensors, i, k)
    {
        const json_t *const kept = json_object_get(k, "kept");

        if (kept && json_number_value(kept) < least)
            least = json_number_value(kept);
    }
    if (least < 0.95)
        fprintf(
            stderr,
            "warning: rounding leaves as little as %.0f %% of what the expert changes; "
            "--type q8_0, f16 or f32 keeps it\n",
            100.0 * least);
}

static void print_measured(const json_t *m)
{
    printf(
        "perplexity of %lld rows: %.4f base, %.4f expert beside it, %.4f merged; a row "
        "moves by up to %.2e nats a token\n",
        (long long)json_integer_value(json_object_get(m, "rows")),
        json_number_value(json_object_get(m, "perplexity_base")),
        json_number_value(json_object_get(m, "perplexity_beside")),
        json_number_value(json_object_get(m, "perplexity_merged")),
        json_number_value(json_object_get(m, "largest_row_change")));
}

static void print_model(const json_t *r)
{
    const json_t *const measured = json_object_get(r, "measured"), *line;
    const json_int_t n = json_integer_value(json_object_get(r, "substituted"));
    size_t i;

    print_tensors(json_object_get(r, "tensors"));
    warn_rounding(json_object_get(r, "tensors"));
    if (n)
        printf("%lld changed tensors are stored as Q8_0: their own format is not "
               "written here\n",
               (long long)n);
    json_array_foreach(json_object_get(r, "missing"), i, line)
        printf("missing: %s\n", json_string_value(line));
    if (measured)
        print_measured(measured);
}

static void print_report(const json_t *r)
{
    const json_t *const gates = json_object_get(r, "gates");

    printf("%s: ", json_string_value(json_object_get(r, "output")));
    if (json_is_object(gates))
        print_gates(gates);
    printf("%s%s\n", json_is_object(gates) ? ", " : "",
           json_string_value(json_object_get(r, "to")));
    if (json_object_get(r, "adapter"))
        print_adapter(json_object_get(r, "adapter"));
    else if (json_object_get(r, "tensors"))
        print_model(r);
}

static int convert(const char *source, const char *out, const struct common *c,
                   const struct artel_convert_options *o)
{
    struct artel_error err = {0};
    char *json = NULL;
    json_t *report;
    int rc = 0;

    if (artel_convert(&json, source, out, o, &err) < 0)
        return report_error(&err);
    if (!json_takes_stdout(c) && (report = json_loads(json, 0, NULL))) {
        print_report(report);
        json_decref(report);
    }
    if (c->json)
        rc = text_write(c->json, json);
    artel_free(json);
    return rc;
}

int cmd_convert(int argc, char **argv)
{
    struct options o = {
        .command = "convert",
        .usage = "SOURCE OUT --to FORM",
        .about =
            "Writes an expert in another form: a PEFT folder or a mixture's expert "
            "as a GGUF LoRA file for llama.cpp, or such a file as a PEFT folder. "
            "Several experts under fixed gates become one.",
        .examples =
            "  artel convert runs/eight/experts/math math.gguf --to gguf-lora\n"
            "  artel convert runs/eight/moa both.gguf --to gguf-lora "
            "--gates math=0.7,law=0.3\n"
            "  artel convert math.gguf adapters/math --to peft --model base.gguf\n"
            "  artel convert runs/eight/moa merged.gguf --to gguf --expert law "
            "--measure law.jsonl\n",
        .min_words = 2,
        .max_words = 2};
    struct artel_convert_options to;
    struct common c = {0};
    struct words words;
    const char *inputs[4];
    uint64_t max_rows = 0;
    int rc = 0;

    artel_convert_options_default(&to);
    to.to = NULL;
    option_text(&o, "to", &to.to, "gguf-lora|peft|gguf|safetensors",
                "what OUT becomes; the last two are models");
    option_text(&o, "expert", &to.expert, "NAME", "of a mixture");
    option_text(&o, "gates", &to.gates, "NAME=G,...",
                "several experts of a mixture, each by its fixed gate");
    option_text(
        &o, "type", &to.type, "f32|f16|bf16|q8_0",
        "numbers of OUT; a LoRA has f32, a model what its base has, where not given");
    option_text(&o, "measure", &to.measure, "DATA",
                "perplexity of these rows' answers before and after a merge");
    option_whole(&o, "max-rows", &max_rows, 1, 1000000000, "of DATA");
    common_options(&o, &c);
    if (!options_parse(&o, argc, argv, &words, &rc))
        return rc;
    if (!to.to)
        return usage_error(
            "convert", "--to", "USE07",
            "say what OUT becomes: gguf-lora, peft, gguf or safetensors");
    if (c.json && !strcmp(c.json, words.at[1]))
        return usage_error("convert", "--json", "USE06",
                           "the report would be written over OUT");
    inputs[0] = words.at[0];
    inputs[1] = words.at[1]; /* what stands there may be written over, but by a model */
    inputs[2] = c.model;
    inputs[3] = to.measure;
    if ((rc = json_check_target("convert", c.json, inputs, 4)) ||
        (rc = common_start(&c)))
        return rc;
    to.model = c.model;
    to.force = c.force;
    to.max_rows = (size_t)max_rows;
    to.stopped = &stop_signal;
    return convert(words.at[0], words.at[1], &c, &to);
}
