/* lowrank.c - truncated singular value decomposition by randomized subspace iteration.
 *
 * The range of M = E diag(d) is found by passing a thin random block through M and M^T a few times, made orthonormal after each
 * pass; the small problem Q^T M is solved exactly. Reads E 2 (passes + 1) times; memory is three thin blocks. */
#include "quant/lowrank.h"

#include <math.h>

typedef struct {
    const float *e, *d;
    int64_t rows, cols;
    int k;
    const float *in;
    float *out;
} product;

/* out [rows x k] = M in, in [cols x k] */
static void times(void *ctx, int64_t b, int64_t end, int ith) {
    const product *p = ctx;
    (void)ith;
    for (int64_t i = b; i < end; i++) {
        float *restrict y = p->out + i * p->k;
        for (int c = 0; c < p->k; c++) y[c] = 0;
        for (int64_t j = 0; j < p->cols; j++) {
            float m = p->e[i * p->cols + j] * p->d[j];
            const float *restrict x = p->in + j * p->k;
            for (int c = 0; c < p->k; c++) y[c] += m * x[c];
        }
    }
}

/* out [cols x k] = M^T in, in [rows x k]; columns b..end */
static void times_t(void *ctx, int64_t b, int64_t end, int ith) {
    const product *p = ctx;
    (void)ith;
    memset(p->out + b * p->k, 0, (size_t)((end - b) * p->k) * sizeof(float));
    for (int64_t i = 0; i < p->rows; i++) {
        const float *restrict x = p->in + i * p->k;
        for (int64_t j = b; j < end; j++) {
            float m = p->e[i * p->cols + j];
            float *restrict y = p->out + j * p->k;
            for (int c = 0; c < p->k; c++) y[c] += m * x[c];
        }
    }
    for (int64_t j = b; j < end; j++)
        for (int c = 0; c < p->k; c++) p->out[j * p->k + c] *= p->d[j];
}

/* Columns of a [n x k] made orthonormal: Gram-Schmidt, twice for safety; a column that vanishes becomes zero. */
static void orthonormal(float *a, int64_t n, int k) {
    for (int c = 0; c < k; c++) {
        double before = 0, after = 0;
        for (int64_t i = 0; i < n; i++) before += (double)a[i * k + c] * a[i * k + c];
        for (int turn = 0; turn < 2; turn++)
            for (int p = 0; p < c; p++) {
                double dot = 0;
                for (int64_t i = 0; i < n; i++) dot += (double)a[i * k + c] * a[i * k + p];
                for (int64_t i = 0; i < n; i++) a[i * k + c] -= (float)dot * a[i * k + p];
            }
        for (int64_t i = 0; i < n; i++) after += (double)a[i * k + c] * a[i * k + c];
        double f = after > 1e-12 * before && after > 0 ? 1 / sqrt(after) : 0;
        for (int64_t i = 0; i < n; i++) a[i * k + c] = (float)(a[i * k + c] * f);
    }
}

void ash_sym_eigen(double *a, int n, double *values, double *q) {
    for (int i = 0; i < n * n; i++) q[i] = i % (n + 1) == 0;
    for (int sweep = 0; sweep < 60; sweep++) {
        double off = 0, diag = 0;
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) *(i == j ? &diag : &off) += a[i * n + j] * a[i * n + j];
        if (off <= 1e-26 * diag) break;
        for (int p = 0; p < n; p++)
            for (int r = p + 1; r < n; r++) {
                double apr = a[p * n + r];
                if (apr == 0) continue;
                double th = (a[r * n + r] - a[p * n + p]) / (2 * apr);
                double t = (th >= 0 ? 1 : -1) / (fabs(th) + sqrt(th * th + 1)), c = 1 / sqrt(t * t + 1), s = t * c;
                for (int i = 0; i < n; i++) {
                    double x = a[i * n + p], y = a[i * n + r];
                    a[i * n + p] = c * x - s * y;
                    a[i * n + r] = s * x + c * y;
                }
                for (int i = 0; i < n; i++) {
                    double x = a[p * n + i], y = a[r * n + i];
                    a[p * n + i] = c * x - s * y;
                    a[r * n + i] = s * x + c * y;
                    x = q[i * n + p], y = q[i * n + r];
                    q[i * n + p] = c * x - s * y;
                    q[i * n + r] = s * x + c * y;
                }
            }
    }
    for (int i = 0; i < n; i++) values[i] = a[i * n + i];
    for (int i = 0; i < n; i++) { /* descending */
        int best = i;
        for (int j = i + 1; j < n; j++)
            if (values[j] > values[best]) best = j;
        double v = values[i];
        values[i] = values[best], values[best] = v;
        for (int r = 0; best != i && r < n; r++) v = q[r * n + i], q[r * n + i] = q[r * n + best], q[r * n + best] = v;
    }
}

ash_status ash_lowrank(const float *e, int64_t rows, int64_t cols, const float *d, int k, int passes, uint64_t seed, ash_pool *pool,
                       float *u, float *s, float *v, ash_error *err) {
    enum { OVER = 8 }; /* more columns than asked for make the leading ones exact */
    int kk = (int)ASH_MIN((int64_t)k + OVER, ASH_MIN(rows, cols));
    float *y = ash_alloc((size_t)(rows * kk) * sizeof *y), *z = ash_alloc((size_t)(cols * kk) * sizeof *z);
    double *g = ash_alloc((size_t)kk * (size_t)kk * sizeof *g), *q = ash_alloc((size_t)kk * (size_t)kk * sizeof *q),
           *val = ash_alloc((size_t)kk * sizeof *val);
    ash_status st = ASH_OK;
    if (!y || !z || !g || !q || !val) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a low-rank factor");
        goto done;
    }
    product to = {e, d, rows, cols, kk, z, y}, back = {e, d, rows, cols, kk, y, z};
    ash_rng rng;
    ash_rng_seed(&rng, seed);
    for (int64_t i = 0; i < cols * kk; i++) z[i] = (float)(ash_rng_f64(&rng) - 0.5);
    for (int p = 0; p <= passes; p++) {
        ash_pool_run(pool, rows, 16, times, &to);
        orthonormal(y, rows, kk);
        ash_pool_run(pool, cols, 32, times_t, &back);
        if (p < passes) orthonormal(z, cols, kk);
    }
    /* M ~ Q B, B = (M^T Q)^T = z^T: eigenvectors of B B^T = z^T z turn Q into u; v = B^T w / s */
    for (int a = 0; a < kk; a++)
        for (int b = a; b < kk; b++) {
            double sum = 0;
            for (int64_t i = 0; i < cols; i++) sum += (double)z[i * kk + a] * z[i * kk + b];
            g[a * kk + b] = g[b * kk + a] = sum;
        }
    ash_sym_eigen(g, kk, val, q);
    for (int c = 0; c < k; c++) {
        double sv = val[c] > 0 ? sqrt(val[c]) : 0;
        s[c] = (float)sv;
        for (int64_t i = 0; i < rows; i++) {
            double sum = 0;
            for (int a = 0; a < kk; a++) sum += (double)y[i * kk + a] * q[a * kk + c];
            u[i * k + c] = (float)sum;
        }
        for (int64_t j = 0; j < cols; j++) {
            double sum = 0;
            for (int a = 0; a < kk; a++) sum += (double)z[j * kk + a] * q[a * kk + c];
            v[j * k + c] = (float)(sv > 0 ? sum / sv : 0);
        }
    }
done:
    ash_free(y);
    ash_free(z);
    ash_free(g);
    ash_free(q);
    ash_free(val);
    return st;
}
