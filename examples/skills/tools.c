/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command at home to one tool call in JSON.
 */
#include "skill.h"

#include <stdio.h>

static const char *const train_rooms[] = {"kitchen", "bedroom", "hall",   "garage",
                                          "office",  "attic",   "cellar", "bathroom"};
static const char *const test_rooms[] = {"living room", "nursery", "library",
                                         "workshop"};
static const struct words rooms = WORDS(train_rooms, test_rooms);

static const char *const train_light[] = {
    "Turn %s the light in the %s.", "Switch %s the %s light.",
    "Please put %s the light of the %s.", "Lights %s in the %s, please."};
static const char *const test_light[] = {"Could you switch %s the light in the %s?",
                                         "I want the light %s in the %s."};
static const struct words light = WORDS(train_light, test_light);

static const char *const train_heat[] = {
    "Set the %s to %u degrees.", "Heat the %s to %u degrees.",
    "I would like the %s at %u degrees.", "The %s should have %u degrees."};
static const char *const test_heat[] = {"Bring the %s up to %u degrees.",
                                        "Keep the %s at %u degrees, please."};
static const struct words heat = WORDS(train_heat, test_heat);

static const char *const train_timer[] = {
    "Set a timer for %u minutes.", "Remind me in %u minutes.",
    "Start a timer of %u minutes.", "Ring after %u minutes."};
static const char *const test_timer[] = {"Wake me in %u minutes.",
                                         "Count down %u minutes for me."};
static const struct words timer = WORDS(train_timer, test_timer);

static void light_row(char *question, char *answer, struct draw *d)
{
    const char *room = draw_word(d, &rooms), *state = draw_below(d, 2) ? "on" : "off";

    snprintf(question, TEXT_MAX, draw_word(d, &light), state, room);
    snprintf(answer, TEXT_MAX,
             "{\"tool\": \"light\", \"args\": {\"room\": \"%s\", \"state\": \"%s\"}}",
             room, state);
}

void tools_row(char *question, char *answer, struct draw *d)
{
    const uint32_t kind = draw_below(d, 3);
    const uint32_t number = kind == 1 ? 15 + draw_below(d, 12) : 1 + draw_below(d, 90);
    const char *room;

    if (kind == 0) {
        light_row(question, answer, d);
    } else if (kind == 1) {
        room = draw_word(d, &rooms);
        snprintf(question, TEXT_MAX, draw_word(d, &heat), room, number);
        snprintf(
            answer, TEXT_MAX,
            "{\"tool\": \"heating\", \"args\": {\"room\": \"%s\", \"degrees\": %u}}",
            room, number);
    } else {
        snprintf(question, TEXT_MAX, draw_word(d, &timer), number);
        snprintf(answer, TEXT_MAX, "{\"tool\": \"timer\", \"args\": {\"minutes\": %u}}",
                 number);
    }
}
