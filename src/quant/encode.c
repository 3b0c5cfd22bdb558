/* encode.c - public encoders: checks, gathering of blocks into lanes, threads.
 *
 * Rows are cut into groups of sixteen blocks (or sub-blocks), each group is scaled into a safe range
 * and transposed, fitted (fit.inc) and packed (pack.c). A block's result does not depend on its group. */
#include "quant/encode.h"
#include "quant/fit.h"
#include "quant/pack.h"
#include "tensor/f16.h"

#include <stdatomic.h>

typedef struct { ash_dtype type; fit_kind kind; int n, per; } plan; /* n weights per lane, `per` lanes per block */

static const plan plans[] = {
    {ASH_Q4_0, FIT_Q4_0, 32, 1},     {ASH_Q5_0, FIT_Q5_0, 32, 1}, {ASH_Q8_0, FIT_Q8_0, 32, 1}, {ASH_IQ4_NL, FIT_IQ4_NL, 32, 1},
    {ASH_Q4_1, FIT_Q4_1, 32, 1},     {ASH_Q5_1, FIT_Q5_1, 32, 1}, {ASH_Q2_K, FIT_Q2_K, 16, 16}, {ASH_Q3_K, FIT_Q3_K, 16, 16},
    {ASH_Q4_K, FIT_Q4_K, 32, 8},     {ASH_Q5_K, FIT_Q5_K, 32, 8}, {ASH_Q6_K, FIT_Q6_K, 16, 16}, {ASH_IQ4_XS, FIT_IQ4_XS, 32, 8},
    {ASH_IQ2_XXS, FIT_IQ2_XXS, 32, 8}, {ASH_IQ2_XS, FIT_IQ2_XS, 16, 16}, {ASH_IQ2_S, FIT_IQ2_S, 16, 16}, {ASH_IQ3_XXS, FIT_IQ3_XXS, 32, 8},
    {ASH_IQ3_S, FIT_IQ3_S, 32, 8},   {ASH_IQ1_S, FIT_IQ1_S, 32, 8}, {ASH_IQ1_M, FIT_IQ1_M, 16, 16}, {ASH_TQ1_0, FIT_TERNARY, 32, 8},
    {ASH_TQ2_0, FIT_TERNARY, 32, 8}, {ASH_Q2_0, FIT_Q2_0, 32, 2},   {ASH_Q1_0, FIT_Q1_0, 32, 4},    {ASH_MXFP4, FIT_MXFP4, 32, 1},
    {ASH_NVFP4, FIT_NVFP4, 16, 4},
};

static const plan *plan_of(ash_dtype t) {
    for (size_t i = 0; i < ASH_ARRAY_LEN(plans); i++)
        if (plans[i].type == t) return &plans[i];
    return NULL;
}

bool ash_quant_can(ash_dtype t) { return t == ASH_F32 || t == ASH_F16 || t == ASH_BF16 || plan_of(t); }

bool ash_quant_wants_imatrix(ash_dtype t) {
    return t == ASH_Q2_K || t == ASH_IQ1_S || t == ASH_IQ1_M || t == ASH_IQ2_XXS || t == ASH_IQ2_XS || t == ASH_IQ2_S || t == ASH_IQ3_XXS;
}

typedef struct {
    const plan *p;
    ash_dtype type;
    fit_fn fit;
    const float *src, *imp;
    uint8_t *dst;
    uint64_t n, n_blocks, per_row; /* columns, blocks in all, blocks per row */
    uint32_t elems, bytes;
    _Atomic uint64_t bad; /* first block with a NaN or infinity, UINT64_MAX: none */
} job;

/* Largest magnitude of a block; false when it holds a NaN or infinity. */
static bool peak(const float *x, uint32_t n, float *out) {
    uint32_t m = 0;
    for (uint32_t j = 0; j < n; j++) {
        uint32_t u = ash_f32_bits(x[j]) & 0x7fffffffu;
        m = u > m ? u : m;
    }
    *out = ash_bits_f32(m);
    return m < 0x7f800000u;
}

/* 2^-e for a peak in [2^e, 2^(e+1)), within what floats can hold. */
static float unit_of(float amax) {
    uint32_t e = ash_f32_bits(amax) >> 23;
    e = e > 252 ? 252 : e;
    return amax > 0 ? ash_bits_f32((254 - e) << 23) : 1.0f;
}

static void mark_bad(job *j, uint64_t b) {
    uint64_t old = atomic_load(&j->bad);
    while (b < old && !atomic_compare_exchange_weak(&j->bad, &old, b)) {}
}

/* One group of blocks b..b+count into lanes. */
static void gather(job *j, uint64_t b, int count, fit_in *in) {
    const plan *p = j->p;
    if (count * p->per < FIT_LANES) memset(in, 0, sizeof *in);
    for (int l = count * p->per; l < FIT_LANES; l++) in->unit[l] = 1.0f;
    for (int i = 0; i < count; i++) {
        uint64_t col = (b + (uint64_t)i) % j->per_row * j->elems;
        const float *x = j->src + (b + (uint64_t)i) * j->elems, *imp = j->imp ? j->imp + col : NULL;
        float amax, wmax = 0;
        if (!peak(x, j->elems, &amax)) {
            mark_bad(j, b + (uint64_t)i);
            amax = 0;
        }
        float unit = unit_of(amax), scale = amax > 0 ? unit : 0.0f;
        if (imp) peak(imp, j->elems, &wmax);
        /* relative to the block's largest weight; columns of no importance keep a trace, so that they are still coded sensibly */
        float wunit = wmax > 0 ? unit_of(wmax) * 0.5f : 0;
        for (int s = 0; s < p->per; s++) {
            int l = i * p->per + s;
            in->unit[l] = unit;
            const float *xs = x + s * p->n, *ws = imp + s * p->n;
            float *xo = in->x + l, *wo = in->w + l;
            if (amax > 0)
                for (int k = 0; k < p->n; k++) xo[k * FIT_LANES] = xs[k] * scale;
            else
                for (int k = 0; k < p->n; k++) xo[k * FIT_LANES] = 0;
            if (wunit > 0)
                for (int k = 0; k < p->n; k++) wo[k * FIT_LANES] = ws[k] * wunit + 1e-10f;
            else
                for (int k = 0; k < p->n; k++) wo[k * FIT_LANES] = 1.0f;
        }
    }
}

static void run_groups(void *ctx, int64_t begin, int64_t end, int ith) {
    (void)ith;
    job *j = ctx;
    int group = FIT_LANES / j->p->per;
    fit_in in;
    fit_out out;
    for (int64_t g = begin; g < end; g++) {
        uint64_t b = (uint64_t)g * (uint64_t)group, left = j->n_blocks - b;
        int count = left < (uint64_t)group ? (int)left : group;
        uint8_t *dst[FIT_LANES];
        for (int i = 0; i < count; i++) dst[i] = j->dst + (b + (uint64_t)i) * j->bytes;
        gather(j, b, count, &in);
        j->fit(j->p->kind, &in, &out);
        ash_pack(j->type, &out, count, dst);
    }
}

/* Float types: one "block" is a row. Values beyond float16 saturate: an infinite weight is never wanted. */
static void run_rows(void *ctx, int64_t begin, int64_t end, int ith) {
    (void)ith;
    job *j = ctx;
    for (int64_t r = begin; r < end; r++) {
        const float *x = j->src + (uint64_t)r * j->n;
        uint8_t *dst = j->dst + (uint64_t)r * j->n * j->bytes;
        float amax;
        if (!peak(x, (uint32_t)ASH_MIN(j->n, UINT32_MAX), &amax)) mark_bad(j, (uint64_t)r);
        if (j->type == ASH_F32) {
            memcpy(dst, x, j->n * 4);
            continue;
        }
        for (uint64_t i = 0; i < j->n; i++) {
            float v = x[i];
            uint16_t h;
            if (j->type == ASH_BF16) h = ash_f32_to_bf16(v);
            else h = ash_f32_to_f16(v > 65504.0f ? 65504.0f : v < -65504.0f ? -65504.0f : v);
            memcpy(dst + 2 * i, &h, 2);
        }
    }
}

static fit_fn fit_at(ash_cpu_level level) {
    level = ASH_MIN(level, ash_cpu_detect());
#if defined(__x86_64__)
    if (level >= ASH_CPU_AVX512) return ash_fit_avx512;
    if (level >= ASH_CPU_AVX2) return ash_fit_avx2;
#endif
    return ash_fit_ref;
}

ash_status ash_quant_rows_at(ash_cpu_level level, ash_dtype t, const float *src, void *dst, uint64_t n_rows, uint64_t n, const float *imp,
                             ash_pool *pool, ash_error *err) {
    if (!ash_quant_can(t)) return ash_fail(err, ASH_E_UNSUPPORTED, "type %s cannot be encoded", ash_dtype_name(t));
    const ash_dtype_info *info = ash_dtype_get((int)t);
    if (n % info->block_elems)
        return ash_fail(err, ASH_E_RANGE, "a row of %llu weights cannot be %s: no multiple of %u", (unsigned long long)n, info->name,
                        info->block_elems);
    uint64_t total;
    if (ash_mul_ovf(n_rows, n, &total) || total > INT64_MAX / 4) return ash_fail(err, ASH_E_RANGE, "too many weights to encode");
    if (total == 0) return ASH_OK;
    bool any = false;
    for (uint64_t i = 0; imp && i < n; i++) {
        if (!(imp[i] >= 0) || imp[i] > 3.4028235e38f)
            return ash_fail(err, ASH_E_RANGE, "the importance of column %llu is negative or not finite", (unsigned long long)i);
        any |= imp[i] > 0;
    }
    job j = {.p = plan_of(t), .type = t, .fit = fit_at(level), .src = src, .imp = any ? imp : NULL, .dst = dst, .n = n, .bytes = info->block_bytes};
    atomic_init(&j.bad, UINT64_MAX);
    if (j.p) {
        j.elems = info->block_elems;
        j.per_row = n / j.elems;
        j.n_blocks = total / j.elems;
        uint64_t group = (uint64_t)(FIT_LANES / j.p->per), groups = (j.n_blocks + group - 1) / group;
        ash_pool_run(pool, (int64_t)groups, 16, run_groups, &j);
    } else {
        j.elems = (uint32_t)ASH_MIN(n, UINT32_MAX);
        j.per_row = 1;
        ash_pool_run(pool, (int64_t)n_rows, (int64_t)(1 + 16384 / n), run_rows, &j);
    }
    uint64_t bad = atomic_load(&j.bad);
    if (bad != UINT64_MAX) {
        uint64_t i = bad * j.elems;
        float a;
        while (i + 1 < total && peak(src + i, 1, &a)) i++;
        return ash_fail_at(err, ASH_E_FORMAT, i, "the weight in row %llu, column %llu is NaN or infinite", (unsigned long long)(i / n),
                           (unsigned long long)(i % n));
    }
    return ASH_OK;
}

ash_status ash_quant_rows(ash_dtype t, const float *src, void *dst, uint64_t n_rows, uint64_t n, const float *imp, struct ash_pool *pool,
                          ash_error *err) {
    return ash_quant_rows_at(ash_cpu_detect(), t, src, dst, n_rows, n, imp, pool, err);
}

ash_status ash_quant_row(ash_dtype t, const float *src, void *dst, uint64_t n, const float *imp, ash_error *err) {
    return ash_quant_rows_at(ash_cpu_detect(), t, src, dst, 1, n, imp, NULL, err);
}
