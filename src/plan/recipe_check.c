/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recipe whose methods cannot all be carried out with the texts that it names is
 * refused before any file is opened.
 */
#include "plan/recipe_check.h"

#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "plan/recipe_keys.h"
#include "plan/recipe_read.h"

static int check_score(const struct recipe_domain *d, const struct yaml_node *at,
                       struct artel_error *err)
{
    const char *names[32], *near;
    char shown[160];
    size_t n = 0;

    while (n < 32 && (names[n] = artel_score_names(n)))
        if (!strcmp(d->score, names[n++]))
            return 0;
    near = nearest_name(d->score, names, n);
    escape_text(shown, sizeof(shown), d->score, strnlen(d->score, 40));
    return recipe_fault(err, at, "RCP03", "domain '%s': unknown score '%s'%s%s%s",
                        d->name, shown, near ? ": did you mean '" : "",
                        near ? near : "", near ? "'?" : "");
}

/* What METHOD wants of domain D. */
static int check_method(const char *method, const struct recipe *r,
                        const struct recipe_domain *d, const struct yaml_node *at,
                        struct artel_error *err)
{
    const struct method_traits *t = method_traits(method);
    struct gate_rule rule;

    method_rule(&rule, method);
    if (t->needs_text && !d->train)
        return recipe_fault(
            err, at, "RCP04",
            "domain '%s' has an adapter but no text: %s%s needs text of "
            "the domain, give 'train'",
            d->name, rule.place == ROUTER_NONE ? "" : "the router of ", method);
    if (r->universal && !strcasecmp(d->name, UNIVERSAL_NAME))
        return recipe_fault(err, at, "RCP05",
                            "a domain cannot be named '%s' beside the universal text",
                            d->name);
    return 0;
}

static int check_domain(const struct recipe *r, const struct recipe_domain *d,
                        struct artel_error *err)
{
    const struct yaml_node at = {.line = d->line, .column = 1};
    int rc = 0;

    if (d->score && check_score(d, &at, err) < 0)
        return ARTEL_EUSAGE;
    if (!d->train && !d->adapter)
        return recipe_fault(err, &at, "RCP04",
                            "domain '%s' needs 'train' (its text) or 'adapter'",
                            d->name);
    for (size_t i = 0; rc == 0 && i < r->n_methods; i++)
        rc = check_method(r->methods[i], r, d, &at, err);
    return rc;
}

static int check_universal(const struct recipe *r, struct artel_error *err)
{
    const struct yaml_node at = {.line = r->universal ? r->universal->text.line : 1,
                                 .column = 1};
    const size_t experts = r->router.experts ? r->router.experts : r->n_domains;

    for (size_t i = 0; i < r->n_methods; i++) {
        const struct method_traits *t = method_traits(r->methods[i]);

        if (t->identities && r->slim.top_k > experts + r->slim.identities)
            return recipe_fault(err, &at, "RCP06",
                                "slim.top_k is %zu, but %s has %zu experts and %zu "
                                "identities",
                                r->slim.top_k, r->methods[i], experts,
                                r->slim.identities);
        if (t->ffn_only && !r->lora.targets[SITE_GATE] && !r->lora.targets[SITE_UP] &&
            !r->lora.targets[SITE_DOWN])
            return recipe_fault(err, &at, "RCP06",
                                "the experts of %s stand in the FFN: lora.target has "
                                "none of gate_proj, up_proj, down_proj",
                                r->methods[i]);

        if (t->universal && (!r->universal || !r->universal->text.train))
            return recipe_fault(err, &at, "RCP04",
                                "%s has a universal expert: give its text as "
                                "'universal: {train: FILE}'",
                                r->methods[i]);
        if (t->own_experts && r->lora.dropout > 0)
            return recipe_fault(err, &at, "RCP06",
                                "the experts of %s read no input that dropout could "
                                "thin out: set lora.dropout to 0",
                                r->methods[i]);
    }
    return 0;
}

/* Where experts make whole FFNs each must stand there. */
static int check_whole_ffn(const struct recipe *r, struct artel_error *err)
{
    const struct yaml_node at = {.line = 1, .column = 1};
    const bool *targets = r->lora.targets;

    for (size_t i = 0; i < r->n_methods; i++) {
        struct gate_rule rule;

        if (method_rule(&rule, r->methods[i]) == 0 && rule.whole_ffn &&
            !targets[SITE_GATE] && !targets[SITE_UP] && !targets[SITE_DOWN])
            return recipe_fault(err, &at, "RCP06",
                                "the experts of %s make whole FFNs: lora.target must "
                                "name gate_proj, up_proj or down_proj",
                                r->methods[i]);
    }
    return 0;
}

/* A setting of one method alone is no setting of a recipe without it. */
static int check_residual(const struct recipe *r, struct artel_error *err)
{
    const struct yaml_node at = {.line = 1, .column = 1};

    for (size_t i = 0; i < r->n_methods; i++)
        if (r->modula.residual || method_traits(r->methods[i])->own_experts)
            return 0;
    return recipe_fault(err, &at, "RCP06",
                        "modula.residual: false leaves out what the universal expert "
                        "of modula-res adds, and no method here is modula-res");
}

int recipe_check_texts(const struct recipe *r, struct artel_error *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < r->n_domains; i++)
        rc = check_domain(r, &r->domains[i], err);
    if (rc == 0)
        rc = check_universal(r, err);
    if (rc == 0)
        rc = check_residual(r, err);
    return rc < 0 ? rc : check_whole_ffn(r, err);
}
