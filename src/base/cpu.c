/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPU features come from the compiler's cpuid helper; AMX also needs the
 * kernel's permission, asked once. Threads are OpenMP's and are pinned here:
 * a scheduler that packs two workers on one virtual CPU halves the speed.
 */
#define _GNU_SOURCE
#include "base/cpu.h"

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "base/openmp.h"

#define MAX_THREADS    1024
#define ARCH_REQ_XCOMP 0x1023
#define XFEATURE_TILES 18
#define STACK_MIN      ((size_t)512 << 10) /* a packed block of a product is 288 KiB */

static const char *const isa_names[] = {"ref", "avx2", "avx512", "avx512bf16", "amx"};

#if defined(__x86_64__)
#include <cpuid.h>

static bool has_avx512bf16(void)
{
    unsigned a, b, c, d;

    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
}

/* Intel's only CPU with the first and without AMX is Cooper Lake, of Skylake's model. */
static bool fast_bf16_dots(void)
{
    unsigned a, b, c, d;

    if (!__get_cpuid(0, &a, &b, &c, &d))
        return false;
    if (b != signature_INTEL_ebx)
        return true;
    return __get_cpuid(1, &a, &b, &c, &d) && (a >> 16 & 15) == 5 && (a >> 4 & 15) == 5;
}

static bool has_amx(void)
{
    unsigned a, b, c, d;

    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return false;
    if (!(d >> 24 & 1) || !(d >> 22 & 1)) /* AMX-TILE, AMX-BF16 */
        return false;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP, XFEATURE_TILES) == 0;
}

static enum cpu_isa detect(void)
{
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return CPU_REF;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return CPU_AVX2;
    if (!has_avx512bf16())
        return CPU_AVX512;
    return has_amx() ? CPU_AMX : CPU_AVX512BF16;
}
#else
static bool fast_bf16_dots(void)
{
    return false;
}

static enum cpu_isa detect(void)
{
    return CPU_REF;
}
#endif

static int named(const char *name)
{
    for (int i = 0; i <= CPU_AMX; i++)
        if (!strcmp(name, isa_names[i]))
            return i;
    return -1;
}

enum cpu_isa cpu_isa(void)
{
    static int chosen = -1;

    if (chosen < 0) {
        const char *forced = getenv("ARTEL_CPU");
        const int best = (int)detect();
        const int want = forced && *forced ? named(forced) : best;

        chosen = want >= 0 && want < best ? want : best;
    }
    return (enum cpu_isa)chosen;
}

bool cpu_fast_bf16_dots(void)
{
    static int fast = -1;

    if (fast < 0)
        fast = fast_bf16_dots();
    return fast;
}

int cpu_check(struct artel_error *err)
{
    const char *forced = getenv("ARTEL_CPU");
    char text[160];

    if (!forced || !*forced)
        return 0;
    if (named(forced) < 0)
        return error_set(err, ARTEL_EUSAGE, "CPU01", "ARTEL_CPU",
                         "unknown instruction set '%s', expected ref, avx2, avx512, "
                         "avx512bf16 or amx",
                         escape_text(text, sizeof(text), forced, strlen(forced)));
    if (named(forced) > (int)detect())
        return error_set(err, ARTEL_ELIMIT, "CPU02", "ARTEL_CPU",
                         "this CPU has no %s; the best it has is %s", forced,
                         isa_names[detect()]);
    return 0;
}

const char *cpu_isa_name(enum cpu_isa isa)
{
    return isa_names[isa];
}

const char *cpu_model_name(void)
{
    static char name[128];
    char line[256];
    FILE *f;

    if (name[0])
        return name;
    snprintf(name, sizeof(name), "unknown");
    f = fopen("/proc/cpuinfo", "re");
    while (f && fgets(line, sizeof(line), f)) {
        char *colon = strchr(line, ':');

        if (strncmp(line, "model name", 10) || !colon)
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(name, sizeof(name), "%.120s", colon + 2);
        break;
    }
    if (f)
        fclose(f);
    return name;
}

static void *wait_for_all(void *gate)
{
    pthread_mutex_lock(gate);
    pthread_mutex_unlock(gate);
    return NULL;
}

/* OpenMP ends the program where a thread cannot start; so N of them are tried first. */
static int try_threads(size_t n, struct artel_error *err)
{
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_t threads[MAX_THREADS];
    size_t started = 0;

    pthread_mutex_lock(&gate);
    while (started + 1 < n &&
           pthread_create(&threads[started], NULL, wait_for_all, &gate) == 0)
        started++;
    pthread_mutex_unlock(&gate);
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    return started + 1 >= n
               ? 0
               : error_set(err, ARTEL_ELIMIT, "CPU04", "threads",
                           "%zu of %zu threads can be started (ulimit -u, -v)",
                           started + 1, n);
}

/* A stack that is too small would end the program in the middle of its work. */
static int check_stacks(struct artel_error *err)
{
    size_t least = STACK_MIN;

#pragma omp parallel reduction(min : least)
    {
        pthread_attr_t attr;
        size_t bytes = STACK_MIN;

        if (pthread_getattr_np(pthread_self(), &attr) == 0) {
            pthread_attr_getstacksize(&attr, &bytes);
            pthread_attr_destroy(&attr);
        }
        if (bytes < least)
            least = bytes;
    }
    return least >= STACK_MIN
               ? 0
               : error_set(err, ARTEL_ELIMIT, "CPU05", "stack",
                           "%zu KiB for a thread, %zu are needed (ulimit -s, "
                           "OMP_STACKSIZE)",
                           least >> 10, STACK_MIN >> 10);
}

/* The CPUs that this process may run on, asked before any thread was pinned. */
static int allowed_cpus(const int **out)
{
    static int cpus[CPU_SETSIZE], n = -1;
    cpu_set_t allowed;

    *out = cpus;
    if (n >= 0)
        return n;
    n = 0;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0)
        for (int i = 0; i < CPU_SETSIZE; i++)
            if (CPU_ISSET(i, &allowed))
                cpus[n++] = i;
    return n;
}

/* Then OpenMP has bound this thread already, and its mask no longer tells of the process. */
static bool placed_by_user(void)
{
    static const char *const names[] = {"OMP_PROC_BIND", "GOMP_CPU_AFFINITY",
                                        "KMP_AFFINITY"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (getenv(names[i]))
            return true;
    return false;
}

static void pin_threads(const int *cpus)
{
#pragma omp parallel
    {
        cpu_set_t one;

        CPU_ZERO(&one);
        CPU_SET(cpus[omp_get_thread_num()], &one);
        (void)sched_setaffinity(0, sizeof(one), &one);
    }
}

int cpu_set_threads(size_t n, struct artel_error *err)
{
    const bool placed = placed_by_user();
    const int *cpus;
    int n_cpus, rc = openmp_check(err); /* before the first question to OpenMP */

    if (rc < 0)
        return rc;
    n_cpus = placed ? omp_get_num_procs() : allowed_cpus(&cpus);
    if (n > MAX_THREADS)
        return error_set(err, ARTEL_EUSAGE, "CPU03", "threads",
                         "%zu threads asked for, expected 1 to %d", n, MAX_THREADS);
    if (!n)
        n = n_cpus > 0 ? (size_t)n_cpus : 1;
    rc = try_threads(n, err);
    if (rc < 0)
        return rc;
    omp_set_dynamic(0);
    omp_set_max_active_levels(1);
    omp_set_num_threads((int)n);
    rc = check_stacks(err);
    if (rc < 0)
        return rc;
    /* Fewer threads leave room for other work, which may be another of these programs with the
     * same first CPU in mind; more have no CPU of their own: the kernel places both. */
    if (!placed && (int)n == n_cpus)
        pin_threads(cpus);
    return 0;
}

void cpu_unpin(void)
{
    const int *cpus;
    const int n = placed_by_user() ? 0 : allowed_cpus(&cpus);
    cpu_set_t all;

    CPU_ZERO(&all);
    for (int i = 0; i < n; i++)
        CPU_SET(cpus[i], &all);
    if (n > 0)
        (void)sched_setaffinity(0, sizeof(all), &all);
}

size_t cpu_threads(void)
{
    return (size_t)omp_get_max_threads();
}
