/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Porter's stemmer (1980) as NLTK extends it, which is what rouge-score stems with;
 * libstemmer's "porter" has none of the extensions and disagrees on words as common
 * as "enjoy", "tries" and "dying". The deviations from the paper:
 *
 *     a few irregular words; words of two letters stay
 *     1a  dies -> die, but flies -> fli        1b  tied -> tie, but spied -> spi
 *     1c  y -> i after a consonant that is not the first letter
 *     2   alli -> al comes first and starts the step anew; bli -> ble; fulli -> ful;
 *         logi -> log, whose l counts with the stem
 *     a stem of one vowel and one consonant also ends "cvc"
 *
 *   m   the measure: how often a vowel is followed by a consonant
 */
#include "eval/text_metrics.h"

#include <stdbool.h>
#include <string.h>

struct stem {
    char *at;
    size_t n;
};

static bool vowel(char c)
{
    return c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u';
}

/* Is letter I a consonant? y is one unless it follows one. */
static bool consonant(const char *word, size_t i)
{
    size_t first = i;

    if (word[i] != 'y')
        return !vowel(word[i]);
    while (first && word[first] == 'y')
        first--;
    return (word[first] == 'y' || !vowel(word[first])) == ((i - first) % 2 == 0);
}

/* The measure of the first N letters. */
static size_t measure(const char *word, size_t n)
{
    bool was = true;
    size_t m = 0;

    for (size_t i = 0; i < n; i++) {
        const bool is = word[i] == 'y' ? i == 0 || !was : !vowel(word[i]);

        m += i && is && !was;
        was = is;
    }
    return m;
}

static bool has_vowel(const char *word, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!consonant(word, i))
            return true;
    return false;
}

static bool ends_cvc(const char *word, size_t n)
{
    if (n == 2)
        return !consonant(word, 0) && consonant(word, 1);
    return n >= 3 && consonant(word, n - 3) && !consonant(word, n - 2) &&
           consonant(word, n - 1) && !strchr("wxy", word[n - 1]);
}

static bool ends(const struct stem *s, const char *suffix)
{
    const size_t n = strlen(suffix);

    return s->n >= n && !memcmp(s->at + s->n - n, suffix, n);
}

/* Put WITH in the place of the last N letters; it is never longer than what has gone. */
static void swap(struct stem *s, size_t n, const char *with)
{
    const size_t m = strlen(with);

    s->n -= n;
    memcpy(s->at + s->n, with, m);
    s->n += m;
}

struct rule {
    const char *suffix, *with;
};

/* The first rule whose suffix fits, where what is before it has a measure above LEAST. */
static void apply(struct stem *s, const struct rule *rules, size_t n_rules,
                  size_t least)
{
    for (size_t i = 0; i < n_rules; i++) {
        const size_t n = strlen(rules[i].suffix);
        size_t before;

        if (!ends(s, rules[i].suffix))
            continue;
        before = s->n - n;
        if (!strcmp(rules[i].suffix, "logi"))
            before++;
        if (measure(s->at, before) > least &&
            (strcmp(rules[i].suffix, "ion") != 0 ||
             (before && strchr("st", s->at[before - 1]))))
            swap(s, n, rules[i].with);
        return;
    }
}

static void step_1a(struct stem *s)
{
    if (ends(s, "ies"))
        swap(s, 3, s->n == 4 ? "ie" : "i");
    else if (ends(s, "sses"))
        swap(s, 2, "");
    else if (ends(s, "s") && !ends(s, "ss"))
        swap(s, 1, "");
}

static void step_1b(struct stem *s)
{
    size_t n;

    if (ends(s, "ied")) {
        swap(s, 3, s->n == 4 ? "ie" : "i");
        return;
    }
    if (ends(s, "eed")) {
        if (measure(s->at, s->n - 3) > 0)
            swap(s, 1, "");
        return;
    }
    n = ends(s, "ed") ? 2 : ends(s, "ing") ? 3 : 0;
    if (!n || !has_vowel(s->at, s->n - n))
        return;
    s->n -= n;
    if (ends(s, "at") || ends(s, "bl") || ends(s, "iz")) {
        swap(s, 0, "e");
    } else if (s->n >= 2 && s->at[s->n - 1] == s->at[s->n - 2] &&
               consonant(s->at, s->n - 1)) {
        if (!strchr("lsz", s->at[s->n - 1]))
            s->n--;
    } else if (measure(s->at, s->n) == 1 && ends_cvc(s->at, s->n)) {
        swap(s, 0, "e");
    }
}

static void step_1c(struct stem *s)
{
    if (ends(s, "y") && s->n > 2 && consonant(s->at, s->n - 2))
        s->at[s->n - 1] = 'i';
}

static void step_2(struct stem *s)
{
    static const struct rule rules[] = {
        {"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"},   {"anci", "ance"},
        {"izer", "ize"},    {"bli", "ble"},     {"alli", "al"},     {"entli", "ent"},
        {"eli", "e"},       {"ousli", "ous"},   {"ization", "ize"}, {"ation", "ate"},
        {"ator", "ate"},    {"alism", "al"},    {"iveness", "ive"}, {"fulness", "ful"},
        {"ousness", "ous"}, {"aliti", "al"},    {"iviti", "ive"},   {"biliti", "ble"},
        {"fulli", "ful"},   {"logi", "log"}};

    while (ends(s, "alli") && measure(s->at, s->n - 4) > 0)
        swap(s, 4, "al");
    apply(s, rules, sizeof(rules) / sizeof(rules[0]), 0);
}

static void step_3_and_4(struct stem *s)
{
    static const struct rule third[] = {
        {"icate", "ic"}, {"ative", ""}, {"alize", "al"}, {"iciti", "ic"},
        {"ical", "ic"},  {"ful", ""},   {"ness", ""}};
    static const struct rule fourth[] = {
        {"al", ""},   {"ance", ""}, {"ence", ""}, {"er", ""},    {"ic", ""},
        {"able", ""}, {"ible", ""}, {"ant", ""},  {"ement", ""}, {"ment", ""},
        {"ent", ""},  {"ion", ""},  {"ou", ""},   {"ism", ""},   {"ate", ""},
        {"iti", ""},  {"ous", ""},  {"ive", ""},  {"ize", ""}};

    apply(s, third, sizeof(third) / sizeof(third[0]), 0);
    apply(s, fourth, sizeof(fourth) / sizeof(fourth[0]), 1);
}

static void step_5(struct stem *s)
{
    if (ends(s, "e")) {
        const size_t m = measure(s->at, s->n - 1);

        if (m > 1 || (m == 1 && !ends_cvc(s->at, s->n - 1)))
            s->n--;
    }
    if (ends(s, "ll") && measure(s->at, s->n - 1) > 1)
        s->n--;
}

size_t stem_word(char *word, size_t n)
{
    static const struct rule irregular[] = {
        {"sky", "sky"},        {"skies", "sky"},        {"dying", "die"},
        {"lying", "lie"},      {"tying", "tie"},        {"news", "news"},
        {"innings", "inning"}, {"inning", "inning"},    {"outings", "outing"},
        {"outing", "outing"},  {"cannings", "canning"}, {"canning", "canning"},
        {"howe", "howe"},      {"proceed", "proceed"},  {"exceed", "exceed"},
        {"succeed", "succeed"}};
    struct stem s = {word, n};

    for (size_t i = 0; i < sizeof(irregular) / sizeof(irregular[0]); i++)
        if (strlen(irregular[i].suffix) == n && !memcmp(irregular[i].suffix, word, n)) {
            s.n = strlen(irregular[i].with);
            memcpy(word, irregular[i].with, s.n);
            return s.n;
        }
    if (n <= 2)
        return n;
    step_1a(&s);
    step_1b(&s);
    step_1c(&s);
    step_2(&s);
    step_3_and_4(&s);
    step_5(&s);
    return s.n;
}
