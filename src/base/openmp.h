/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the surroundings may do to OpenMP before it starts. LLVM's runtime, which clang
 * links, makes a file of 1 KiB in /dev/shm that is named after the process; a process
 * that ends badly leaves it to the next one of its number. One without content would end
 * that one by SIGBUS or an abort, so it is removed before main() and after fork().
 */
#ifndef ARTEL_BASE_OPENMP_H
#define ARTEL_BASE_OPENMP_H

struct artel_error;

/* ARTEL_ELIMIT where files are limited to less than the runtime's own needs. */
int openmp_check(struct artel_error *err);

#endif
