/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the methods of a recipe ask of its texts.
 */
#ifndef ARTEL_PLAN_RECIPE_CHECK_H
#define ARTEL_PLAN_RECIPE_CHECK_H

#include "plan/recipe.h"

/* Every domain has what each method needs of it, and so has the universal expert. */
int recipe_check_texts(const struct recipe *r, struct artel_error *err);

#endif
