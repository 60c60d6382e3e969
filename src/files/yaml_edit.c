/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing a tree by "a.b=value" and printing it again. Codes are listed in yaml.c.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "files/yaml.h"

static int refuse(const char *assignment, const char *reason, struct artel_error *err)
{
    char where[160];

    return error_set(err, ARTEL_EUSAGE, "YAML11",
                     escape_text(where, sizeof(where), assignment, strlen(assignment)),
                     "%s", reason);
}

/* The child of MAP named KEY (N bytes), made an empty scalar where it is new. */
static struct yaml_node *child_of(struct yaml_node *map, const char *key, size_t n)
{
    struct yaml_node **place = &map->child, *made;

    for (; *place; place = &(*place)->next)
        if (strlen((*place)->key) == n && !memcmp((*place)->key, key, n))
            return *place;
    made = calloc(1, sizeof(*made));
    if (!made)
        return NULL;
    made->key = strndup(key, n);
    made->text = strdup("");
    if (!made->key || !made->text) {
        yaml_close(made);
        return NULL;
    }
    *place = made;
    return made;
}

/* An empty scalar (a key without a value) may become a map. */
static bool open_map(struct yaml_node *n)
{
    if (n->kind == YAML_SCALAR && !n->quoted && n->text && !n->text[0]) {
        free(n->text);
        n->text = NULL;
        n->kind = YAML_MAP;
    }
    return n->kind == YAML_MAP;
}

/* VALUE's content becomes that of NODE, which keeps its key and place. */
static void replace(struct yaml_node *node, struct yaml_node *value)
{
    const struct yaml_node old = *node;

    node->kind = value->kind;
    node->quoted = value->quoted;
    node->text = value->text;
    node->child = value->child;
    value->text = old.text;
    value->child = old.child;
    yaml_close(value);
}

int yaml_override(struct yaml_node *root, const char *assignment,
                  struct artel_error *err)
{
    const char *equals = strchr(assignment, '='), *key = assignment;
    struct yaml_node *node = root, *value;
    int rc;

    if (!equals || equals == assignment)
        return refuse(assignment, "expected key=value", err);
    for (const char *c = assignment; c <= equals; c++)
        if ((*c == '.' || c == equals) && (c == assignment || c[-1] == '.'))
            return refuse(assignment, "a key has an empty part", err);
    if (equals[1] && equals[1 + strspn(equals + 1, " \t")]) {
        rc = yaml_parse(&value, equals + 1, strlen(equals + 1), assignment, err);
        if (rc < 0)
            return refuse(assignment, "its value is not YAML", err);
    } else {
        value = calloc(1, sizeof(*value));
        if (value)
            value->text = strdup("");
        if (!value || !value->text) {
            yaml_close(value);
            return error_nomem(err, sizeof(*value));
        }
    }
    while (key < equals) {
        const size_t n = strcspn(key, ".=");

        if (!open_map(node)) {
            yaml_close(value);
            return refuse(assignment, "a part of the key is no group of settings", err);
        }
        node = child_of(node, key, n);
        if (!node) {
            yaml_close(value);
            return error_nomem(err, sizeof(*node));
        }
        key += n + 1;
    }
    replace(node, value);
    return 0;
}

/* Words that stand without quotes wherever they are. */
static bool is_plain_word(const char *text)
{
    if (!isalnum((unsigned char)text[0]) && text[0] != '_' && text[0] != '/')
        return false;
    for (; *text; text++)
        if (!isalnum((unsigned char)*text) && !strchr("_./-+", *text))
            return false;
    return true;
}

void yaml_print_quoted(FILE *f, const char *text)
{
    fputc('"', f);
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;

        if (c == '"' || c == '\\')
            fprintf(f, "\\%c", c);
        else if (c == '\n')
            fputs("\\n", f);
        else if (c < 0x20 || c == 0x7f)
            fprintf(f, "\\x%02x", c);
        else if (c == 0xc2 && ((unsigned char)text[1] < 0xa0)) { /* C1 controls */
            fprintf(f, "\\x%02x", (unsigned char)text[1]);
            text++;
        } else if (c == 0xe2 && (unsigned char)text[1] == 0x80 &&
                   ((unsigned char)text[2] & 0xfe) == 0xa8) { /* line separators */
            fprintf(f, "\\u20%02x", 0x28 + ((unsigned char)text[2] & 1));
            text += 2;
        } else if (c == 0xef && (unsigned char)text[1] == 0xbb &&
                   (unsigned char)text[2] == 0xbf) { /* byte-order mark */
            fputs("\\uFEFF", f);
            text += 2;
        } else if (c == 0xef && (unsigned char)text[1] == 0xbf &&
                   (unsigned char)text[2] >= 0xbe) { /* no characters */
            fprintf(f, "\\uFFF%c", (unsigned char)text[2] == 0xbe ? 'E' : 'F');
            text += 2;
        } else
            fputc(c, f);
    }
    fputc('"', f);
}

/* May TEXT stand without quotes in a block? What was plain between braces may not
 * ("-"), so this is asked again, and answered carefully: quoting what is no word and
 * no number changes nothing. */
static bool is_plain_text(const char *text)
{
    const char first = text[0];

    if (!first)
        return true;
    if (!isalnum((unsigned char)first) && !strchr("_/~", first) &&
        !(strchr("+-.", first) && isalnum((unsigned char)text[1])) &&
        !(strchr("+-", first) && text[1] == '.' && isdigit((unsigned char)text[2])))
        return false;
    for (const char *c = text; *c; c++) {
        if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f)
            return false;
        if ((*c == ':' && (c[1] == ' ' || !c[1])) ||
            (*c == ' ' && (c[1] == '#' || !c[1])))
            return false;
    }
    return true;
}

static void print_scalar(FILE *f, const struct yaml_node *n)
{
    if (n->quoted || !is_plain_text(n->text))
        yaml_print_quoted(f, n->text);
    else
        fputs(n->text, f);
}

static void print_children(FILE *f, const struct yaml_node *parent, int indent);

/* The value after "key:" or "-". */
static void print_after(FILE *f, const struct yaml_node *n, int indent)
{
    if (n->kind == YAML_SCALAR) {
        if (n->quoted || n->text[0])
            fputc(' ', f);
        print_scalar(f, n);
        fputc('\n', f);
    } else if (!n->child) {
        fputs(n->kind == YAML_MAP ? " {}\n" : " []\n", f);
    } else {
        fputc('\n', f);
        print_children(f, n, indent + 2);
    }
}

static void print_children(FILE *f, const struct yaml_node *parent, int indent)
{
    for (const struct yaml_node *n = parent->child; n; n = n->next) {
        fprintf(f, "%*s", indent, "");
        if (parent->kind == YAML_LIST) {
            fputc('-', f);
        } else {
            if (is_plain_word(n->key))
                fputs(n->key, f);
            else
                yaml_print_quoted(f, n->key);
            fputc(':', f);
        }
        print_after(f, n, indent);
    }
}

int yaml_print(char **out, const struct yaml_node *root, struct artel_error *err)
{
    size_t n = 0;
    FILE *f;
    int failed;

    *out = NULL;
    f = open_memstream(out, &n);
    if (!f)
        return error_nomem(err, sizeof(FILE));
    if (root->kind == YAML_SCALAR) {
        if (!root->quoted && !root->text[0])
            fputs("---", f); /* nothing at all would be no document */
        else
            print_scalar(f, root);
        fputc('\n', f);
    } else if (!root->child) {
        fputs(root->kind == YAML_MAP ? "{}\n" : "[]\n", f);
    } else {
        print_children(f, root, 0);
    }
    failed = ferror(f);
    if (fclose(f) || failed) {
        free(*out);
        *out = NULL;
        return error_nomem(err, n);
    }
    return 0;
}
