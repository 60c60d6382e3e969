/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dequant_FORMAT_SET and matvec_FORMAT_SET functions of a vector set, which
 * live in a file of their own, and the tables that a set is filled with.
 */
#ifndef ARTEL_MATH_DEQUANT_SETS_H
#define ARTEL_MATH_DEQUANT_SETS_H

#include "math/kernels.h"

#define FORMAT_DECLARED(format, set)                                                   \
    void dequant_##format##_##set(float *out, const void *in, size_t n);               \
    void matvec_##format##_##set(float *const *y, const float *x, size_t T,            \
                                 const void *rows, size_t n_rows, size_t n_in);
#define FORMATS_DECLARED(set)                                                          \
    FORMAT_DECLARED(f32, set)                                                          \
    FORMAT_DECLARED(f16, set)                                                          \
    FORMAT_DECLARED(bf16, set)                                                         \
    FORMAT_DECLARED(q8_0, set)                                                         \
    FORMAT_DECLARED(q4_0, set)                                                         \
    FORMAT_DECLARED(q4_1, set)                                                         \
    FORMAT_DECLARED(q5_0, set)                                                         \
    FORMAT_DECLARED(q5_1, set)                                                         \
    FORMAT_DECLARED(q4_k, set)                                                         \
    FORMAT_DECLARED(q5_k, set)                                                         \
    FORMAT_DECLARED(q6_k, set)                                                         \
    FORMAT_DECLARED(iq4_nl, set)

FORMATS_DECLARED(ref)
FORMATS_DECLARED(avx2)
FORMATS_DECLARED(avx512)

#define FORMAT_TABLE(what, set)                                                        \
    {                                                                                  \
        [DTYPE_F32] = what##_f32_##set, [DTYPE_F16] = what##_f16_##set,                \
        [DTYPE_BF16] = what##_bf16_##set, [DTYPE_Q8_0] = what##_q8_0_##set,            \
        [DTYPE_Q4_0] = what##_q4_0_##set, [DTYPE_Q4_1] = what##_q4_1_##set,            \
        [DTYPE_Q5_0] = what##_q5_0_##set, [DTYPE_Q5_1] = what##_q5_1_##set,            \
        [DTYPE_Q4_K] = what##_q4_k_##set, [DTYPE_Q5_K] = what##_q5_k_##set,            \
        [DTYPE_Q6_K] = what##_q6_k_##set, [DTYPE_IQ4_NL] = what##_iq4_nl_##set,        \
    }
#define DEQUANT_TABLE(set) FORMAT_TABLE(dequant, set)
#define MATVEC_TABLE(set)  FORMAT_TABLE(matvec, set)

#endif
