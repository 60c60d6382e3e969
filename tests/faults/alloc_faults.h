/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocations that fail on demand; for programs linked with --wrap of malloc, calloc,
 * realloc and strdup. One source file a program may include it.
 */
#ifndef ARTEL_TESTS_FAULTS_ALLOC_FAULTS_H
#define ARTEL_TESTS_FAULTS_ALLOC_FAULTS_H

#include <stdbool.h>
#include <stddef.h>

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
char *__wrap_strdup(const char *text);

/* While ARMED, allocation FAIL_AT of those SEEN since fails, and all after it FOR_GOOD. */
static struct {
    bool armed, for_good;
    size_t seen, fail_at;
} allocation;

static bool allocation_fails(void)
{
    size_t i;

    if (!allocation.armed)
        return false;
    i = allocation.seen++;
    return allocation.for_good ? i >= allocation.fail_at : i == allocation.fail_at;
}

void *__wrap_malloc(size_t n)
{
    return allocation_fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return allocation_fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return allocation_fails() ? NULL : __real_realloc(p, n);
}

char *__wrap_strdup(const char *text)
{
    return allocation_fails() ? NULL : __real_strdup(text);
}

#endif
