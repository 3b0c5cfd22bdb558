/* attn_ref.c - scalar reference of the attention and probability kernels: qk, pv, softmax, soft-cap,
 * log-sum-exp, KL divergence. Every sum's order is fixed by its own length only: a score is one fma
 * chain over the head dimension, an output one fma chain over the keys, a softmax sum runs in 64 lanes
 * from the first key, lse and kld in 16 double lanes.
 */
#include "kern/kern_decl.h"
#include "kern/mathf.h"

static inline float el_f32(const void *p, int64_t i) { return ((const float *)p)[i]; }
static inline float el_f16(const void *p, int64_t i) { return ash_f16_to_f32(((const uint16_t *)p)[i]); }

#define ONE(T)                                                                                                                     \
    ASH_REF_BODY qk_##T(const float *q, const void *k, int64_t ldk, int n_keys, int hd, float scale, float *s) {                   \
        for (int j = 0; j < n_keys; j++) {                                                                                         \
            float acc = 0;                                                                                                         \
            for (int d = 0; d < hd; d++) acc = fmaf(el_##T(k, j * ldk + d), q[d], acc);                                            \
            s[j] = scale * acc;                                                                                                    \
        }                                                                                                                          \
    }                                                                                                                              \
    ASH_REF_BODY pv_##T(const float *p, const void *v, int64_t ldv, int n_keys, int hd, float *out) {                              \
        for (int j = 0; j < n_keys; j++)                                                                                           \
            for (int d = 0; d < hd; d++) out[d] = fmaf(p[j], el_##T(v, j * ldv + d), out[d]);                                      \
    }                                                                                                                              \
    ASH_REF_FMA(ash_k_qk_##T##_ref, qk_##T,                                                                                        \
                (const float *q, const void *k, int64_t ldk, int n_keys, int hd, float scale, float *s),                           \
                (q, k, ldk, n_keys, hd, scale, s))                                                                                 \
    ASH_REF_FMA(ash_k_pv_##T##_ref, pv_##T, (const float *p, const void *v, int64_t ldv, int n_keys, int hd, float *out),          \
                (p, v, ldv, n_keys, hd, out))
ONE(f32)
ONE(f16)

#define MANY(T)                                                                                                                    \
    void ash_k_qkm_##T##_ref(const float *q, int64_t ldq, int n_q, const void *k, int64_t ldk, int n_keys, int hd, float scale,    \
                             float *s, int64_t lds) {                                                                              \
        for (int i = 0; i < n_q; i++) ash_k_qk_##T##_ref(q + i * ldq, k, ldk, n_keys, hd, scale, s + i * lds);                     \
    }                                                                                                                              \
    void ash_k_pvm_##T##_ref(const float *p, int64_t ldp, int n_q, const void *v, int64_t ldv, int n_keys, int hd, float *out,     \
                             int64_t ldo) {                                                                                        \
        for (int i = 0; i < n_q; i++) ash_k_pv_##T##_ref(p + i * ldp, v, ldv, n_keys, hd, out + i * ldo);                          \
    }
MANY(f32)
MANY(f16)

void ash_k_softmax_ref(float *s, int n) {
    float max = -INFINITY, l[ASH_SUM_LANES] = {0};
    for (int i = 0; i < n; i++) max = s[i] > max ? s[i] : max;
    for (int i = 0; i < n; i++) {
        s[i] = ash_expf(s[i] - max);
        l[i % ASH_SUM_LANES] += s[i];
    }
    float inv = 1.0f / ash_fold64(l);
    for (int i = 0; i < n; i++) s[i] *= inv;
}

void ash_k_softcap_ref(float *s, int64_t n, float cap) {
    for (int64_t i = 0; i < n; i++) s[i] = cap * ash_tanhf(s[i] / cap);
}

double ash_k_lse_ref(const float *x, int64_t n) {
    float max = -INFINITY;
    double l[16] = {0};
    for (int64_t i = 0; i < n; i++) max = x[i] > max ? x[i] : max;
    for (int64_t i = 0; i < n; i++) l[i % 16] += (double)ash_expf(x[i] - max);
    return (double)max + log(ash_fold16d(l));
}

double ash_k_kld_ref(const float *a, double lse_a, const float *b, double lse_b, int64_t n) {
    /* lse_a in two floats, so that the exponent is rounded once; equal rows give exactly 0 */
    float hi = (float)lse_a, lo = (float)(lse_a - (double)hi);
    double diff = lse_b - lse_a, l[16] = {0};
    for (int64_t i = 0; i < n; i++) {
        double p = (double)ash_expf((a[i] - hi) - lo);
        l[i % 16] = fma(p, (double)(a[i] - b[i]) + diff, l[i % 16]);
    }
    return ash_fold16d(l);
}
