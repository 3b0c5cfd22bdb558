/* sys.c - CPU level and count, clock, random numbers. */
#include "base/base.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#if defined(__aarch64__)
static const char *const level_names[ASH_CPU_COUNT] = {"scalar", "neon", "dotprod", "i8mm"};
#else
static const char *const level_names[ASH_CPU_COUNT] = {"scalar", "avx2", "avx512"};
#endif

const char *ash_cpu_level_name(ash_cpu_level l) {
    return (unsigned)l < ASH_CPU_COUNT ? level_names[l] : "?";
}

bool ash_cpu_level_parse(const char *s, ash_cpu_level *out) {
    for (int i = 0; i < ASH_CPU_COUNT; i++)
        if (strcasecmp(s, level_names[i]) == 0) return *out = (ash_cpu_level)i, true;
    return false;
}

static ash_cpu_level hardware(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    unsigned a, b, c = 0, d; /* f16c: leaf 1, ECX bit 29; clang 14 has no name for it */
    bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !f16c) return ASH_CPU_SCALAR;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni"))
        return ASH_CPU_AVX512;
    return ASH_CPU_AVX2;
#elif defined(__aarch64__) && defined(__linux__)
    /* Linux arm64 ABI (uapi/asm/hwcap.h): HWCAP_ASIMDDP is bit 20 of the first word, HWCAP2_I8MM bit 13 of the second */
    if (!(getauxval(AT_HWCAP) >> 20 & 1)) return ASH_CPU_NEON;
    return getauxval(AT_HWCAP2) >> 13 & 1 ? ASH_CPU_I8MM : ASH_CPU_DOTPROD;
#elif defined(__aarch64__)
    return ASH_CPU_NEON; /* part of the architecture */
#else
    return ASH_CPU_SCALAR;
#endif
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static ash_cpu_level g_level;
static char g_model[128] = "unknown";

/* What the processor (x86: brand string of CPUID leaves 0x80000002-4) or the board's device tree calls itself. */
static void read_model(void) {
    char text[128] = "";
#if defined(__x86_64__)
    unsigned r[12] = {0};
    bool ok = true;
    for (unsigned i = 0; i < 3; i++) ok = ok && __get_cpuid(0x80000002u + i, r + 4 * i, r + 4 * i + 1, r + 4 * i + 2, r + 4 * i + 3);
    if (ok) memcpy(text, r, sizeof r);
#else
    FILE *f = fopen("/proc/device-tree/model", "re");
    if (f) {
        text[fread(text, 1, sizeof text - 1, f)] = 0;
        fclose(f);
    }
#endif
    size_t n = strlen(text), at = strspn(text, " ");
    while (n > at && text[n - 1] == ' ') n--;
    if (n > at) snprintf(g_model, sizeof g_model, "%.*s", (int)(n - at), text + at);
}

static void init(void) {
    g_level = hardware();
    const char *e = getenv("ASHLAR_CPU");
    ash_cpu_level mask;
    if (e && ash_cpu_level_parse(e, &mask) && mask < g_level) g_level = mask;
    read_model();
}

ash_cpu_level ash_cpu_detect(void) {
    pthread_once(&once, init);
    return g_level;
}

const char *ash_cpu_model(void) {
    pthread_once(&once, init);
    return g_model;
}

#ifndef _WIN32 /* there: sys_win.c */
int ash_cpu_count(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n;
}
#endif

double ash_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* xoshiro256**, seeded by splitmix64: prng.di.unimi.it */
static uint64_t rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

void ash_rng_seed(ash_rng *r, uint64_t seed) {
    for (int i = 0; i < 4; i++) {
        uint64_t z = (seed += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        r->s[i] = z ^ (z >> 31);
    }
}

uint64_t ash_rng_u64(ash_rng *r) {
    uint64_t *s = r->s, out = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return out;
}

double ash_rng_f64(ash_rng *r) { return (double)(ash_rng_u64(r) >> 11) * 0x1p-53; }

uint64_t ash_rng_below(ash_rng *r, uint64_t n) {
    uint64_t limit = UINT64_MAX - UINT64_MAX % n, x;
    do x = ash_rng_u64(r);
    while (x >= limit);
    return x % n;
}
