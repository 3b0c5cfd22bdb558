/* kern_f32_bench.c - GMAC/s, G elements/s and GB/s of the float kernels per CPU level, one thread, data
 * in cache unless said otherwise. Best of several timings in CPU time of the thread: the machine may be shared.
 * Usage: kern_f32_bench [NAME-PREFIX [LEVEL]] */
#include "kern/kern.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const char *g_want = "";

static float *floats(size_t n, uint64_t seed) {
    float *p = ash_alloc_aligned(n * sizeof *p + 64, 64);
    if (!p) exit(4);
    ash_rng r;
    ash_rng_seed(&r, seed);
    for (size_t i = 0; i < n; i++) p[i] = (float)(ash_rng_f64(&r) * 2 - 1);
    return p;
}

static double cpu_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Best time of one run of stmt within about 60 ms. */
#define TIME(out, stmt)                                                                                                            \
    do {                                                                                                                           \
        int reps_ = 1;                                                                                                             \
        double best_ = 1e30, end_ = cpu_now() + 0.06;                                                                              \
        do {                                                                                                                       \
            double a_ = cpu_now();                                                                                                 \
            for (int i_ = 0; i_ < reps_; i_++) { stmt; }                                                                           \
            double d_ = cpu_now() - a_;                                                                                            \
            if (d_ / reps_ < best_) best_ = d_ / reps_;                                                                            \
            if (d_ < 5e-5) reps_ *= 2;                                                                                             \
        } while (cpu_now() < end_);                                                                                                \
        out = best_;                                                                                                               \
    } while (0)

static bool wanted(const char *name) { return strncmp(name, g_want, strlen(g_want)) == 0; }
static const char *lv(const ash_kern *k) { return ash_cpu_level_name(k->level); }

static void bench_gemmf(const ash_kern *k) {
    static const int shapes[][3] = {{576, 576, 96},   {576, 1536, 96},   {1536, 576, 96},  {640, 2048, 96},  {2048, 640, 96},
                                    {576, 1536, 512}, {2048, 640, 1024}, {640, 2048, 511}, {576, 1536, 1},   {576, 1536, 3},
                                    {576, 1536, 8},   {1024, 64, 96},    {64, 128, 96},    {576, 49152, 96}};
    for (size_t i = 0; i < ASH_ARRAY_LEN(shapes); i++) {
        int K = shapes[i][0], R = shapes[i][1], T = shapes[i][2];
        if (k->level == ASH_CPU_SCALAR && (R > 1000 || T > 100)) continue;
        float *p = floats((size_t)R * (size_t)K, 1), *x = floats((size_t)T * (size_t)K, 2), *y = floats((size_t)T * (size_t)R, 3);
        double t;
        TIME(t, k->gemmf(p, K, R, x, K, T, y, R));
        printf("gemmf      %-7s K %4d rows %5d tok %4d  %8.2f GMAC/s\n", lv(k), K, R, T, (double)K * R * T / t * 1e-9);
        ash_free(p), ash_free(x), ash_free(y);
    }
}

/* weights beyond the caches: 64 MiB */
static void bench_gemvf(const ash_kern *k) {
    static const ash_dtype ts[] = {ASH_F32, ASH_F16, ASH_BF16};
    enum { K = 2048 };
    float *w = floats((size_t)16 << 20, 1), *x = floats(K, 2), *y = floats((size_t)32768, 3);
    uint16_t *h = (uint16_t *)w;
    for (size_t i = 0; i < 3; i++) {
        int64_t rows = i ? 16384 : 8192;
        if (i == 1)
            for (size_t j = 0; j < (size_t)32 << 20; j++) h[j] &= 0x3fff;
        size_t rb = (size_t)ash_dtype_row_bytes(ts[i], K);
        double t;
        TIME(t, k->gemvf[ts[i]](w, rb, rows, K, x, y));
        double far = (double)rb * (double)rows / t * 1e-9;
        TIME(t, k->gemvf[ts[i]](w, rb, 64, K, x, y));
        printf("gemvf_%-4s %-7s memory %6.1f GB/s, L2 %6.1f GB/s\n", ash_dtype_name(ts[i]), lv(k), far, (double)rb * 64 / t * 1e-9);
    }
    ash_free(w), ash_free(x), ash_free(y);
}

static void bench_decode(const ash_kern *k) {
    enum { N = 65536 };
    float *src = floats(N, 1), *dst = floats(N, 2);
    for (int t = 0; t < ASH_DTYPE_MAX; t++) {
        if (!k->decode[t]) continue;
        double s;
        TIME(s, k->decode[t](src, dst, N));
        printf("decode     %-7s %-8s %6.2f Gelem/s\n", lv(k), ash_dtype_name((ash_dtype)t), N / s * 1e-9);
    }
    ash_free(src), ash_free(dst);
}

#define ELEM(name, n, stmt)                                                                                                        \
    do {                                                                                                                           \
        double t_;                                                                                                                 \
        TIME(t_, stmt);                                                                                                            \
        printf("%-10s %-7s n %6d  %6.2f Gelem/s\n", name, lv(k), (int)(n), (double)(n) / t_ * 1e-9);                                \
    } while (0)

static void bench_elem(const ash_kern *k) {
    enum { N = 1536, V = 262144 };
    float *a = floats(V, 1), *b = floats(V, 2), *c = floats(V, 3);
    static uint16_t h[V];
    double kl = 0;
    ELEM("packf", 16 * 576, k->packf(a, 576, 16, 576, c));
    ELEM("rmsnorm", 576, k->rmsnorm(a, b, 576, 1e-5f, c));
    ELEM("addto", N, k->addto(c, a, N));
    ELEM("silu_mul", N, k->silu_mul(c, a, N));
    memcpy(c, a, sizeof(float) * N);
    ELEM("gelu_mul", N, k->gelu_mul(c, a, N));
    ELEM("softcap", N, k->softcap(b, N, 30.0f));
    ELEM("to_f16", N, k->to_f16(a, h, N));
    ELEM("from_f16", N, k->from_f16(h, c, N));
    ELEM("softmax", 512, k->softmax(c, 512));
    for (int i = 0; i < V; i++) b[i] = a[i] * 1.01f;
    double la = 0, lb = 0;
    ELEM("lse", V, la = k->lse(a, V));
    lb = k->lse(b, V);
    ELEM("kld", V, kl += k->kld(a, la, b, lb, V));
    if (kl < 0) printf("kld below zero\n"); /* keeps the calls */
    ELEM("rope_norm", 576, k->rope_norm(c, 9, 64, 64, b));
    ELEM("rope_neox", 1024, k->rope_neox(c, 4, 256, 256, b));
    ash_free(a), ash_free(b), ash_free(c);
}

/* causal attention of n_q tokens that end at n_keys, one KV head; GMAC/s counts visible keys only */
static void bench_attn(const ash_kern *k) {
    static const int cases[][5] = {/* hd, group, n_q, n_keys, f16 */
                                   {64, 3, 32, 512, 1}, {64, 3, 32, 512, 0}, {64, 3, 32, 4096, 1}, {256, 4, 32, 512, 1},
                                   {64, 3, 1, 512, 1},  {64, 3, 1, 4096, 1}, {64, 1, 1, 512, 1},   {256, 4, 1, 512, 1},
                                   {256, 4, 1, 4096, 1}, {256, 1, 1, 512, 1}};
    for (size_t i = 0; i < ASH_ARRAY_LEN(cases); i++) {
        const int hd = cases[i][0], group = cases[i][1], nq = cases[i][2], n = cases[i][3], f16 = cases[i][4];
        if (k->level == ASH_CPU_SCALAR && nq > 1) continue;
        float *kv = floats((size_t)(2 * n * hd), 1), *q = floats((size_t)(nq * group * hd), 2), *o = floats((size_t)(nq * group * hd), 3);
        uint16_t *h = ash_alloc((size_t)(2 * n * hd) * 2);
        k->to_f16(kv, h, 2 * n * hd);
        int lo[32], hi[32];
        double mac = 0;
        for (int t = 0; t < nq; t++) lo[t] = 0, hi[t] = n - nq + t + 1, mac += 2.0 * hd * group * hi[t];
        void *base = f16 ? (void *)h : (void *)kv;
        const ash_keys_form form = f16 ? ASH_KEYS_F16 : ASH_KEYS_F32;
        ash_attn a = {.hd = hd, .n_k = 1, .n_v = 1, .group = group, .n_q = nq, .q = q, .ldq = group * hd, .out = o, .ldo = group * hd,
                      .lo = lo, .hi = hi, .scale = 0.1f, .k = {{form, base, hd, n}},
                      .v = {{form, (char *)base + (size_t)(n * hd) * (f16 ? 2 : 4), hd, n}}};
        void *scratch = ash_alloc_aligned(ash_attn_scratch_bytes(hd, group, n), 64);
        double t;
        TIME(t, ash_attn_run(k, &a, scratch));
        printf("attn       %-7s hd %3d group %d q %2d keys %4d %s  %7.2f GMAC/s  %8.1f us\n", lv(k), hd, group, nq, n, f16 ? "f16" : "f32",
               mac / t * 1e-9, t * 1e6);
        ash_free(kv), ash_free(q), ash_free(o), ash_free(h), ash_free(scratch);
    }
}

int main(int argc, char **argv) {
    if (argc > 1) g_want = argv[1];
    for (int l = ASH_CPU_COUNT - 1; l >= 0; l--) {
        const ash_kern *k = ash_kern_get((ash_cpu_level)l);
        if ((int)k->level != l || (argc > 2 && strcmp(argv[2], lv(k)) != 0)) continue;
        if (wanted("gemmf")) bench_gemmf(k);
        if (wanted("gemvf")) bench_gemvf(k);
        if (wanted("decode")) bench_decode(k);
        if (wanted("elem")) bench_elem(k);
        if (wanted("attn")) bench_attn(k);
    }
    return 0;
}
