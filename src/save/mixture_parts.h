/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the reader and the writer of mixtures share.
 */
#ifndef ARTEL_SAVE_MIXTURE_PARTS_H
#define ARTEL_SAVE_MIXTURE_PARTS_H

#define MIXTURE_JSON "mixture.json"

#endif
