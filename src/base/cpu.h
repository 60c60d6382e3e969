/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this CPU can do, what ARTEL_CPU lets it do, and where threads run.
 *
 * ARTEL_CPU = ref | avx2 | avx512 | avx512bf16 | amx caps the instruction sets that
 * are used. Asking for one that the CPU lacks is an error.
 */
#ifndef ARTEL_BASE_CPU_H
#define ARTEL_BASE_CPU_H

#include <stdbool.h>
#include <stddef.h>

struct artel_error;

enum cpu_isa { CPU_REF, CPU_AVX2, CPU_AVX512, CPU_AVX512BF16, CPU_AMX };

/* The set in use: the best one, or the one ARTEL_CPU names. Chosen once. */
enum cpu_isa cpu_isa(void);
const char *cpu_isa_name(enum cpu_isa isa);
/* Do dot products of bf16 in vectors run as often a cycle as products of floats? Not on
 * Intel's CPUs since AMX, where they run a quarter as often. */
bool cpu_fast_bf16_dots(void);
const char *cpu_model_name(void); /* "Intel(R) Xeon(R) ...", or "unknown" */

/* ARTEL_CPU is unknown, or names what the CPU lacks: ARTEL_ELIMIT with the name. */
int cpu_check(struct artel_error *err);

/*
 * Use N threads (0: one per CPU this process may run on) for every parallel
 * region, and pin each to a CPU of its own where they fill all of these and neither
 * OMP_PROC_BIND nor GOMP_CPU_AFFINITY says where threads belong.
 */
int cpu_set_threads(size_t n, struct artel_error *err);
size_t cpu_threads(void);
/* This thread, and those that it will start, may run wherever the process may again. */
void cpu_unpin(void);

#endif
