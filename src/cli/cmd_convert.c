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

static void print_report(const json_t *r)
{
    const json_t *const gates = json_object_get(r, "gates");

    printf("%s: ", json_string_value(json_object_get(r, "output")));
    if (json_is_object(gates))
        print_gates(gates);
    printf(", %s\n", json_string_value(json_object_get(r, "to")));
    if (json_object_get(r, "adapter"))
        print_adapter(json_object_get(r, "adapter"));
}

static int convert(const char *source, const char *out, const struct common *c,
                   const struct artel_convert_options *o)
{
    struct artel_error err = {0};
    char *json = NULL;
    json_t *report;
    int rc = 0;

    signals_name_file(source);
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
            "  artel convert math.gguf adapters/math --to peft --model base.gguf\n",
        .min_words = 2,
        .max_words = 2};
    struct artel_convert_options to;
    struct common c = {0};
    struct words words;
    int rc = 0;

    artel_convert_options_default(&to);
    to.to = NULL;
    option_text(&o, "to", &to.to, "gguf-lora|peft", "what OUT becomes");
    option_text(&o, "expert", &to.expert, "NAME", "of a mixture");
    option_text(&o, "gates", &to.gates, "NAME=G,...",
                "several experts of a mixture, each by its fixed gate");
    option_text(&o, "type", &to.type, "f32|f16|bf16", "numbers of a GGUF LoRA; f32");
    common_options(&o, &c);
    if (!options_parse(&o, argc, argv, &words, &rc))
        return rc;
    if (!to.to)
        return usage_error("convert", "--to", "USE07",
                           "say what OUT becomes: gguf-lora or peft");
    if ((rc = json_check_target("convert", c.json, words.at, 1)) ||
        (rc = common_start(&c)))
        return rc;
    to.model = c.model;
    to.force = c.force;
    return convert(words.at[0], words.at[1], &c, &to);
}
