/* test_kern_f32.c - float kernels: scalar reference against double arithmetic, and every CPU level
 * against the scalar reference, bit for bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "kern/kern_decl.h"
#include "kern/mathf.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static double ulp(float got, double want) {
    int e;
    frexp(want, &e);
    return fabs((double)got - want) / ldexp(1.0, e - 24);
}

static void test_exp(void **s) {
    (void)s;
    double worst = 0;
    for (uint32_t u = 0; u < 0x42b17218; u += 977)
        for (int sg = 0; sg < 2; sg++) {
            float x = ash_bits_f32(u | (uint32_t)sg << 31);
            if (x < ASH_EXP_LO || x > ASH_EXP_HI) continue;
            double e = ulp(ash_expf(x), exp((double)x));
            worst = e > worst ? e : worst;
        }
    if (worst > 1.1) fail_msg("exp: %.3f ulp", worst);
    assert_true(ash_expf(-INFINITY) == 0 && ash_expf(-1000.0f) == 0 && isinf(ash_expf(1000.0f)) && isinf(ash_expf(INFINITY)));
    assert_true(isnan(ash_expf(NAN)) && ash_expf(0.0f) == 1 && ash_expf(ASH_EXP_LO) >= 0x1p-126f && isfinite(ash_expf(ASH_EXP_HI)));
}

static void test_activations(void **s) {
    (void)s;
    for (float x = -60; x < 60; x += 0.0137f) {
        double t = tanh((double)x), sl = (double)x / (1 + exp(-(double)x));
        double u = sqrt(2 / M_PI) * ((double)x + 0.044715 * (double)x * (double)x * (double)x), g = 0.5 * (double)x * (1 + tanh(u));
        assert_true(fabs((double)ash_tanhf(x) - t) <= 3e-7 * fabs(t));
        assert_true(fabs((double)ash_siluf(x) - sl) <= 3e-7 * fabs(sl) + 1e-37);
        assert_true(fabs((double)ash_geluf(x) - g) <= 2e-7 * fabs(g) + 1e-6 * fabs((double)x) * (fabs((double)x) < 6 ? 1 : 0) + 1e-15);
    }
    assert_true(ash_tanhf(1e30f) == 1 && ash_tanhf(-1e30f) == -1 && ash_geluf(1e30f) == 1e30f && ash_geluf(-1e30f) == 0);
    assert_true(ash_siluf(1e30f) == 1e30f && ash_siluf(-1e30f) == 0);
}


/* ---- parity of the levels: guarded buffers, odd sizes ---- */

/* n bytes that end right before an inaccessible page; `off` bytes of slack shift the start's alignment. */
typedef struct {
    char *map;
    size_t len;
} guard;

static void *guard_new(guard *g, size_t n, size_t off) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    g->len = (n + off + page - 1) / page * page + page;
    g->map = mmap(NULL, g->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(g->map != MAP_FAILED);
    assert_int_equal(mprotect(g->map + g->len - page, page, PROT_NONE), 0);
    return g->map + g->len - page - n - off;
}
static void guard_free(guard *g) { munmap(g->map, g->len); }

static ash_rng rng = {{1, 2, 3, 4}};
static float frand(void) { return (float)(ash_rng_f64(&rng) * 2 - 1); }
/* Mostly moderate values, some denormal, zero and large ones. */
static float odd_float(void) {
    switch (ash_rng_below(&rng, 24)) {
    case 0: return frand() * 1e-40f;
    case 1: return -0.0f;
    case 2: return frand() * 1e15f;
    case 3: return 0.0f;
    default: return frand() * 4;
    }
}

#define N_LEVELS (ASH_CPU_COUNT - 1) /* above scalar */
static const ash_kern *level_table(size_t i) {
    const ash_kern *k = ash_kern_get((ash_cpu_level)(i + 1));
    return k->level == (ash_cpu_level)(i + 1) ? k : NULL;
}

static void assert_same(const char *what, const float *got, const float *want, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (ash_f32_bits(got[i]) != ash_f32_bits(want[i]) && !(got[i] != got[i] && want[i] != want[i]))
            fail_msg("%s: element %lld of %lld: %a, expected %a", what, (long long)i, (long long)n, (double)got[i], (double)want[i]);
}

static void test_gemmf(void **s) {
    (void)s;
    static const int ks[] = {1, 2, 15, 33, 639, 641, 1300}, rows[] = {1, 15, 16, 17, 33, 64, 100, 131, 288}, toks[] = {1, 2, 3, 5, 6, 7, 11, 12, 13, 25};
    for (size_t c = 0; c < 60; c++) {
        int K = ks[ash_rng_below(&rng, ASH_ARRAY_LEN(ks))], R = rows[ash_rng_below(&rng, ASH_ARRAY_LEN(rows))];
        int T = toks[c % ASH_ARRAY_LEN(toks)];
        if ((int64_t)K * R * T > 4000000) K = 33;
        int64_t ldx = K + (int64_t)ash_rng_below(&rng, 3), ldy = R + (int64_t)ash_rng_below(&rng, 3);
        guard gw, gp, gx, gy, gr;
        size_t np = (size_t)(R + 15) / 16 * 16 * (size_t)K, nx = (size_t)((T - 1) * ldx + K), ny = (size_t)((T - 1) * ldy + R);
        float *w = guard_new(&gw, (size_t)R * (size_t)K * 4, 0), *p = guard_new(&gp, np * 4, 0), *x = guard_new(&gx, nx * 4, 0);
        float *y = guard_new(&gy, ny * 4, 0), *ref = guard_new(&gr, ny * 4, 0);
        for (int64_t i = 0; i < (int64_t)R * K; i++) w[i] = odd_float();
        for (size_t i = 0; i < nx; i++) x[i] = odd_float();
        const ash_kern *k0 = ash_kern_get(ASH_CPU_SCALAR);
        for (int r = 0; r < R; r += 16) k0->packf(w + (int64_t)r * K, K, ASH_MIN(16, R - r), K, p + (int64_t)r * K);
        k0->gemmf(p, K, R, x, ldx, T, ref, ldy);
        for (size_t l = 0; l < N_LEVELS; l++) {
            const ash_kern *k = level_table(l);
            if (!k) continue;
            guard gq;
            float *q = guard_new(&gq, np * 4, 0);
            for (int r = 0; r < R; r += 16) k->packf(w + (int64_t)r * K, K, ASH_MIN(16, R - r), K, q + (int64_t)r * K);
            assert_same("packf", q, p, (int64_t)np);
            k->gemmf(p, K, R, x, ldx, T, y, ldy);
            for (int t = 0; t < T; t++) assert_same("gemmf", y + t * ldy, ref + t * ldy, R);
            k->gemvf[ASH_F32](w, (size_t)K * 4, R, K, x, y);
            assert_same("gemvf", y, ref, R);
            guard_free(&gq);
        }
        guard_free(&gw), guard_free(&gp), guard_free(&gx), guard_free(&gy), guard_free(&gr);
    }
}

static void test_gemv16(void **s) {
    (void)s;
    static const ash_dtype ts[] = {ASH_F16, ASH_BF16};
    for (int c = 0; c < 40; c++) {
        int K = 1 + (int)ash_rng_below(&rng, 90), R = 1 + (int)ash_rng_below(&rng, 50);
        guard gw, gx, gy, gr;
        uint16_t *w = guard_new(&gw, (size_t)(R * K) * 2, 0);
        float *x = guard_new(&gx, (size_t)K * 4, 0), *y = guard_new(&gy, (size_t)R * 4, 0), *ref = guard_new(&gr, (size_t)R * 4, 0);
        for (int i = 0; i < R * K; i++) w[i] = ash_f32_to_f16(odd_float());
        for (int i = 0; i < K; i++) x[i] = frand();
        for (size_t t = 0; t < 2; t++) {
            ash_kern_get(ASH_CPU_SCALAR)->gemvf[ts[t]](w, (size_t)K * 2, R, K, x, ref);
            for (size_t l = 0; l < N_LEVELS; l++) {
                if (!level_table(l)) continue;
                level_table(l)->gemvf[ts[t]](w, (size_t)K * 2, R, K, x, y);
                assert_same(ash_dtype_name(ts[t]), y, ref, R);
            }
        }
        guard_free(&gw), guard_free(&gx), guard_free(&gy), guard_free(&gr);
    }
}

/* Runs CALL(k, a, b, y) for every level on guarded copies of a, b, y and compares y (and a when in place). */
#define ELEM(name, n, fill_a, fill_b, CALL)                                                                                        \
    do {                                                                                                                           \
        guard ga_, gb_, gy_, gr_;                                                                                                  \
        float *a0 = guard_new(&ga_, (size_t)(n) * 4, 0), *b0 = guard_new(&gb_, (size_t)(n) * 4, 0);                                \
        float *y_ = guard_new(&gy_, (size_t)(n) * 4, 0), *r_ = guard_new(&gr_, (size_t)(n) * 4, 0);                                \
        for (int i_ = 0; i_ < (n); i_++) a0[i_] = fill_a, b0[i_] = fill_b;                                                         \
        memcpy(r_, a0, (size_t)(n) * 4);                                                                                           \
        {                                                                                                                          \
            const ash_kern *k = ash_kern_get(ASH_CPU_SCALAR);                                                                      \
            float *y = r_, *b = b0;                                                                                                \
            (void)b;                                                                                                               \
            CALL;                                                                                                                  \
        }                                                                                                                          \
        for (size_t l_ = 0; l_ < N_LEVELS; l_++) {                                                                    \
            const ash_kern *k = level_table(l_);                                                                                   \
            if (!k) continue;                                                                                                      \
            memcpy(y_, a0, (size_t)(n) * 4);                                                                                       \
            float *y = y_, *b = b0;                                                                                                \
            (void)b;                                                                                                               \
            CALL;                                                                                                                  \
            assert_same(name, y_, r_, n);                                                                                          \
        }                                                                                                                          \
        guard_free(&ga_), guard_free(&gb_), guard_free(&gy_), guard_free(&gr_);                                                    \
    } while (0)

static float wide_float(void) {
    static const float v[] = {0.0f, -0.0f, 1e-40f, -1e-40f, 1e30f, -1e30f, 88.72f, -87.33f, 90.0f, -104.0f, 0.625f, -0.6249f};
    uint64_t c = ash_rng_below(&rng, 40);
    return c < ASH_ARRAY_LEN(v) ? v[c] : frand() * 12;
}

static void test_elem(void **s) {
    (void)s;
    for (int n = 1; n < 300; n += n < 140 ? 1 : 37) {
        ELEM("rmsnorm", n, frand(), frand(), k->rmsnorm(y, b, n, 1e-5f, y));
        ELEM("rmsnorm without weight", n, frand(), frand(), k->rmsnorm(y, NULL, n, 1e-5f, y));
        ELEM("addto", n, odd_float(), odd_float(), k->addto(y, b, n));
        ELEM("silu_mul", n, wide_float(), frand(), k->silu_mul(y, b, n));
        ELEM("gelu_mul", n, wide_float(), frand(), k->gelu_mul(y, b, n));
        ELEM("softcap", n, wide_float(), 0, k->softcap(y, n, 30.0f));
        ELEM("softmax", n, frand() * 20, 0, k->softmax(y, n));
        ELEM("softmax of far values", n, wide_float(), 0, k->softmax(y, n));
    }
    ELEM("softmax of one", 1, -3e38f, 0, k->softmax(y, 1));
}

static void test_softmax_value(void **s) {
    (void)s;
    float x[777];
    double e[777], sum = 0;
    for (int i = 0; i < 777; i++) x[i] = frand() * 10, sum += e[i] = exp((double)x[i]);
    ash_kern_get(ash_cpu_detect())->softmax(x, 777);
    /* s - max lies in (-20, 0]: rounding it costs up to 2^-20 */
    for (int i = 0; i < 777; i++) assert_true(fabs((double)x[i] - e[i] / sum) <= 2e-6 * e[i] / sum);
}

static void test_halves(void **s) {
    (void)s;
    const ash_kern *k0 = ash_kern_get(ASH_CPU_SCALAR);
    for (size_t l = 0; l < N_LEVELS; l++) {
        const ash_kern *k = level_table(l);
        if (!k) continue;
        static uint16_t h[65536], back[65536], ref16[65536];
        static float f[65536], ref[65536];
        for (int i = 0; i < 65536; i++) h[i] = (uint16_t)i;
        k->from_f16(h, f, 65536), k0->from_f16(h, ref, 65536);
        assert_same("from_f16", f, ref, 65536);
        for (uint32_t step = 0; step < 64; step++) {
            for (uint32_t i = 0; i < 65536; i++) f[i] = ash_bits_f32(i * 65536u + step * 1021u);
            k->to_f16(f, back, 65536), k0->to_f16(f, ref16, 65536);
            assert_memory_equal(back, ref16, sizeof back);
        }
        for (int n = 1; n < 40; n++) {
            guard g1, g2;
            float *x = guard_new(&g1, (size_t)n * 4, 0);
            uint16_t *y = guard_new(&g2, (size_t)n * 2, 0);
            for (int i = 0; i < n; i++) x[i] = odd_float();
            k->to_f16(x, y, n), k0->to_f16(x, ref16, n);
            assert_memory_equal(y, ref16, (size_t)n * 2);
            k->from_f16(y, x, n), k0->from_f16(ref16, ref, n);
            assert_same("from_f16", x, ref, n);
            guard_free(&g1), guard_free(&g2);
        }
    }
}

static void test_rope(void **s) {
    (void)s;
    for (int hd = 2; hd <= 160; hd += 2)
        for (int cut = 0; cut < 2; cut++) {
            int rot = cut ? (hd / 2 + 1) / 2 * 2 : hd, n = 3 * hd;
            float cs[160];
            for (int i = 0; i < rot / 2; i++) cs[2 * i] = cosf((float)i), cs[2 * i + 1] = sinf((float)i);
            ELEM("rope_norm", n, frand(), 0, k->rope_norm(y, 3, hd, rot, cs));
            ELEM("rope_neox", n, frand(), 0, k->rope_neox(y, 3, hd, rot, cs));
        }
}

static void test_lse_kld(void **s) {
    (void)s;
    static float a[5003], b[5003];
    for (int n = 1; n <= 5003; n += n < 70 ? 1 : 822) {
        guard g1, g2;
        float *pa = guard_new(&g1, (size_t)n * 4, 0), *pb = guard_new(&g2, (size_t)n * 4, 0);
        double sa = 0, sb = 0, kl = 0;
        for (int i = 0; i < n; i++) pa[i] = frand() * 15, pb[i] = pa[i] + frand() * 0.1f;
        for (int i = 0; i < n; i++) sa += exp((double)pa[i]), sb += exp((double)pb[i]);
        for (int i = 0; i < n; i++) kl += exp((double)pa[i]) / sa * ((double)pa[i] - (double)pb[i] + log(sb) - log(sa));
        const ash_kern *k0 = ash_kern_get(ASH_CPU_SCALAR);
        double la = k0->lse(pa, n), lb = k0->lse(pb, n), kd = k0->kld(pa, la, pb, lb, n);
        assert_true(fabs(la - log(sa)) < 1e-6);
        assert_true(fabs(kd - kl) < 4e-7); /* p is right to 2e-6 (rounding of a - lse), |log p - log q| < 0.2 */
        assert_true(k0->kld(pa, la, pa, la, n) == 0);
        for (size_t l = 0; l < N_LEVELS; l++) {
            const ash_kern *k = level_table(l);
            if (!k) continue;
            assert_true(k->lse(pa, n) == la && k->lse(pb, n) == lb);
            assert_true(k->kld(pa, la, pb, lb, n) == kd && k->kld(pa, la, pa, la, n) == 0);
        }
        guard_free(&g1), guard_free(&g2);
    }
    for (int i = 0; i < 5003; i++) a[i] = i % 7 ? -INFINITY : 1, b[i] = -1e30f;
    for (size_t l = 0; l < N_LEVELS; l++)
        if (level_table(l)) {
            assert_true(level_table(l)->lse(a, 5003) == ash_kern_get(ASH_CPU_SCALAR)->lse(a, 5003));
            assert_true(level_table(l)->lse(b, 5003) == ash_kern_get(ASH_CPU_SCALAR)->lse(b, 5003));
        }
}

static void test_qk_pv(void **s) {
    (void)s;
    static const int hds[] = {64, 16, 1, 7, 80, 256, 100};
    for (int c = 0; c < 60; c++) {
        int hd = hds[ash_rng_below(&rng, ASH_ARRAY_LEN(hds))], n = 1 + (int)ash_rng_below(&rng, c % 10 ? 70 : 1200);
        int nq = 1 + (int)ash_rng_below(&rng, 14), f16 = c % 2;
        int64_t ld = hd + (int64_t)ash_rng_below(&rng, 2) * 5, ldq = hd + 3, lds = n + 2;
        size_t nk = (size_t)((n - 1) * ld + hd);
        guard gk, gq, gs;
        void *kv = guard_new(&gk, nk * (f16 ? 2 : 4), 0);
        float *q = guard_new(&gq, (size_t)((nq - 1) * ldq + hd) * 4, 0), *sc = guard_new(&gs, (size_t)((nq - 1) * lds + n) * 4, 0);
        float *ref = calloc((size_t)(nq * lds), 4), *o = calloc((size_t)(nq * ldq), 4), *oref = calloc((size_t)(nq * ldq), 4);
        for (size_t i = 0; i < nk; i++)
            if (f16) ((uint16_t *)kv)[i] = ash_f32_to_f16(frand());
            else ((float *)kv)[i] = frand();
        for (int i = 0; i < (nq - 1) * ldq + hd; i++) q[i] = frand();
        const ash_kern *k0 = ash_kern_get(ASH_CPU_SCALAR);
        (f16 ? k0->qkm_f16 : k0->qkm_f32)(q, ldq, nq, kv, ld, n, hd, 0.125f, ref, lds);
        (f16 ? k0->pvm_f16 : k0->pvm_f32)(ref, lds, nq, kv, ld, n, hd, oref, ldq);
        for (size_t l = 0; l < N_LEVELS; l++) {
            const ash_kern *k = level_table(l);
            if (!k) continue;
            (f16 ? k->qkm_f16 : k->qkm_f32)(q, ldq, nq, kv, ld, n, hd, 0.125f, sc, lds);
            for (int i = 0; i < nq; i++) assert_same("qkm", sc + i * lds, ref + i * lds, n);
            (f16 ? k->qk_f16 : k->qk_f32)(q, kv, ld, n, hd, 0.125f, sc);
            assert_same("qk", sc, ref, n);
            memset(o, 0, (size_t)(nq * ldq) * 4);
            (f16 ? k->pvm_f16 : k->pvm_f32)(ref, lds, nq, kv, ld, n, hd, o, ldq);
            for (int i = 0; i < nq; i++) assert_same("pvm", o + i * ldq, oref + i * ldq, hd);
            memset(o, 0, (size_t)hd * 4);
            (f16 ? k->pv_f16 : k->pv_f32)(ref, kv, ld, n, hd, o);
            assert_same("pv", o, oref, hd);
        }
        free(ref), free(o), free(oref);
        guard_free(&gk), guard_free(&gq), guard_free(&gs);
    }
}


static void test_decode(void **s) {
    (void)s;
    const ash_kern *k0 = ash_kern_get(ASH_CPU_SCALAR);
    for (int t = 0; t < ASH_DTYPE_MAX; t++) {
        if (!k0->decode[t]) continue;
        const ash_dtype_info *ti = ash_dtype_get(t);
        for (int c = 0; c < 8; c++) {
            int64_t n = (int64_t)ti->block_elems * (c + 1) + (ti->block_elems == 1 ? 13 * c : 0);
            size_t bytes = (size_t)n / ti->block_elems * ti->block_bytes;
            guard gb, gy;
            uint8_t *src = guard_new(&gb, bytes, 0);
            float *y = guard_new(&gy, (size_t)n * 4, 0), *ref = malloc((size_t)n * 4);
            for (size_t i = 0; i < bytes; i++) src[i] = (uint8_t)ash_rng_u64(&rng);
            k0->decode[t](src, ref, n);
            for (size_t l = 0; l < N_LEVELS; l++) {
                if (!level_table(l)) continue;
                level_table(l)->decode[t](src, y, n);
                assert_same(ti->name, y, ref, n);
            }
            free(ref);
            guard_free(&gb), guard_free(&gy);
        }
    }
}

/* One token and head at a time from the one-row kernels, as kern.h describes it. */
static void attn_plain(const ash_kern *k, const ash_attn *a, int t, int h, float *out) {
    const bool f16 = a->k[0].form == ASH_KEYS_F16;
    float q[256], *sc = malloc(sizeof(float) * (size_t)(a->k[0].n + (a->n_k > 1 ? a->k[1].n : 0)));
    for (int d = 0; d < a->hd; d++) q[d] = a->q[t * a->ldq + h * a->hd + d] * a->scale;
    size_t es = f16 ? 2 : 4;
    int n = a->hi[t] - a->lo[t];
    memset(out, 0, (size_t)a->hd * 4);
    for (int pass = 0; pass < 2; pass++) {
        const ash_keys *runs = pass == 0 ? a->k : a->v;
        for (int g = 0, base = 0; g < a->n_k; base += runs[g].n, g++) {
            int b = ASH_MAX(a->lo[t] - base, 0), e = ASH_MIN(a->hi[t] - base, runs[g].n), at = base + b - a->lo[t];
            if (b >= e) continue;
            const char *p = (const char *)runs[g].p + (size_t)(b * runs[g].ld) * es;
            if (pass == 0) (f16 ? k->qk_f16 : k->qk_f32)(q, p, runs[g].ld, e - b, a->hd, 1.0f, sc + at);
            else (f16 ? k->pv_f16 : k->pv_f32)(sc + at, p, runs[g].ld, e - b, a->hd, out);
        }
        if (pass == 0) {
            if (a->cap > 0) k->softcap(sc, n, a->cap);
            k->softmax(sc, n);
        }
    }
    free(sc);
}

static void test_attn(void **s) {
    (void)s;
    for (int c = 0; c < 48; c++) {
        static const int hds[] = {64, 16, 80, 256, 20};
        int hd = hds[c % 5], group = 1 + (int)ash_rng_below(&rng, 5), nq = 1 + (int)ash_rng_below(&rng, c % 3 ? 6 : 60), f16 = c & 1;
        int past = (int)ash_rng_below(&rng, c % 7 ? 50 : 1500), window = c % 4 == 1 ? 1 + (int)ash_rng_below(&rng, 40) : 0;
        int n_keys = past + nq, split = c % 3 == 2 ? (int)ash_rng_below(&rng, (uint64_t)n_keys) : n_keys;
        size_t nk = (size_t)n_keys * (size_t)hd, es = f16 ? 2 : 4, nqf = (size_t)(nq * group * hd);
        guard gk, gv, gq, go, gs;
        char *kk = guard_new(&gk, nk * es, 0), *vv = guard_new(&gv, nk * es, 0);
        float *q = guard_new(&gq, nqf * 4, 0), *out = guard_new(&go, nqf * 4, 0), ref[256];
        for (size_t i = 0; i < nk; i++) {
            float a = frand() * 3, b = frand();
            uint16_t ha = ash_f32_to_f16(a), hb = ash_f32_to_f16(b);
            memcpy(kk + i * es, f16 ? (void *)&ha : (void *)&a, es), memcpy(vv + i * es, f16 ? (void *)&hb : (void *)&b, es);
        }
        for (size_t i = 0; i < nqf; i++) q[i] = frand() * 3;
        int lo[64], hi[64];
        for (int t = 0; t < nq; t++) hi[t] = past + t + 1, lo[t] = window ? ASH_MAX(0, hi[t] - window) : 0;
        const ash_keys_form form = f16 ? ASH_KEYS_F16 : ASH_KEYS_F32;
        const size_t off = (size_t)split * (size_t)hd * es;
        const int runs = split < n_keys ? 2 : 1;
        ash_attn a = {.hd = hd, .n_k = runs, .n_v = runs, .group = group, .n_q = nq, .q = q, .ldq = group * hd, .out = out,
                      .ldo = group * hd, .lo = lo, .hi = hi, .scale = 0.11f, .cap = c % 5 == 3 ? 20.0f : 0,
                      .k = {{form, kk, hd, split}, {form, kk + off, hd, n_keys - split}},
                      .v = {{form, vv, hd, split}, {form, vv + off, hd, n_keys - split}}};
        for (int l = 0; l < ASH_CPU_COUNT; l++) {
            const ash_kern *k = ash_kern_get((ash_cpu_level)l);
            /* the buffer's start is page-aligned */
            size_t need = ash_attn_scratch_bytes(hd, group, n_keys);
            need = (need + 4095) / 4096 * 4096;
            void *scratch = guard_new(&gs, need, 0);
            memset(out, 0xff, nqf * 4);
            ash_attn_run(k, &a, scratch);
            for (int t = 0; t < nq; t++)
                for (int h = 0; h < group; h++) {
                    attn_plain(k, &a, t, h, ref);
                    assert_same("attention", out + (t * group + h) * hd, ref, hd);
                }
            guard_free(&gs);
        }
        guard_free(&gk), guard_free(&gv), guard_free(&gq), guard_free(&go);
    }
}

/* Every path of the driver against the scalar product, several jobs at once, 1 and 3 threads. */
static void test_mm(void **s) {
    (void)s;
    static const ash_dtype ts[] = {ASH_F32, ASH_F16, ASH_Q8_0, ASH_Q4_0, ASH_BF16};
    for (int c = 0; c < 12; c++) {
        const int K = 32 * (1 + (int)ash_rng_below(&rng, 12)), T = c % 3 == 0 ? 1 : 1 + (int)ash_rng_below(&rng, 20);
        float *x = malloc((size_t)(T * K) * 4), *w = malloc((size_t)K * 4);
        for (int i = 0; i < T * K; i++) x[i] = frand();
        ash_mat mats[5];
        ash_mm_job jobs[5];
        void *data[5];
        for (int j = 0; j < 5; j++) {
            int64_t rows = 1 + (int64_t)ash_rng_below(&rng, 150);
            size_t rb = (size_t)ash_dtype_row_bytes(ts[j], (uint64_t)K);
            uint8_t *d = data[j] = malloc((size_t)rows * rb);
            for (size_t i = 0; i < (size_t)rows * rb; i++) d[i] = (uint8_t)(ash_rng_u64(&rng) & 0x3b); /* no NaN, no infinity */
            mats[j] = (ash_mat){ts[j], d, rb, rows, K};
            jobs[j] = (ash_mm_job){&mats[j], malloc((size_t)(rows * T) * 4), rows};
        }
        size_t sb = ash_mm_scratch_bytes(K);
        void *scratch = ash_alloc_aligned(3 * sb, 64);
        for (int l = 0; l < ASH_CPU_COUNT; l++)
            for (int threads = 1; threads <= 3; threads += 2) {
                ash_pool *p;
                assert_int_equal(ash_pool_new(&p, threads, NULL), ASH_OK);
                const ash_kern *k = ash_kern_get((ash_cpu_level)l);
                ash_mm_f32(k, p, scratch, sb, jobs, 5, x, K, T);
                for (int j = 0; j < 5; j++) {
                    float *panels = ash_alloc_aligned(ash_packed_floats(mats[j].n_rows, K) * 4, 64);
                    float *y = malloc((size_t)(mats[j].n_rows * T) * 4);
                    ash_mm_pack(k, p, &mats[j], panels);
                    k->gemmf(panels, K, mats[j].n_rows, x, K, T, y, mats[j].n_rows);
                    assert_same("packed", jobs[j].y, y, mats[j].n_rows * T);
                    ash_free(panels), free(y);
                    for (int64_t r = 0; r < mats[j].n_rows; r++) {
                        ash_dtype_decode(mats[j].type, mats[j].data + (size_t)r * mats[j].row_bytes, w, (uint64_t)K);
                        for (int t = 0; t < T; t++) {
                            float acc = 0;
                            for (int i = 0; i < K; i++) acc = fmaf(w[i], x[t * K + i], acc);
                            assert_same("ash_mm_f32", jobs[j].y + t * mats[j].n_rows + r, &acc, 1);
                        }
                    }
                }
                ash_pool_free(p);
            }
        for (int j = 0; j < 5; j++) free(data[j]), free(jobs[j].y);
        ash_free(scratch), free(x), free(w);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),    cmocka_unit_test(test_activations), cmocka_unit_test(test_gemmf),
        cmocka_unit_test(test_gemv16), cmocka_unit_test(test_elem),        cmocka_unit_test(test_softmax_value),
        cmocka_unit_test(test_halves), cmocka_unit_test(test_rope),        cmocka_unit_test(test_lse_kld),
        cmocka_unit_test(test_qk_pv),  cmocka_unit_test(test_decode),      cmocka_unit_test(test_attn),
        cmocka_unit_test(test_mm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
