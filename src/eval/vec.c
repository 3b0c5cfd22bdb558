/* vec.c - plain loops, compiled for several vector widths where the compiler can choose at load time. */
#include "eval/vec.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(_WIN32) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

CLONES void ash_vec_add(float *y, const float *a, const float *b, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

CLONES void ash_vec_sub(float *y, const float *a, const float *b, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = a[i] - b[i];
}

CLONES void ash_vec_to_bf16(uint16_t *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, x + i, 4);
        y[i] = (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
    }
}

CLONES void ash_vec_from_bf16(float *y, const uint16_t *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t u = (uint32_t)x[i] << 16;
        memcpy(y + i, &u, 4);
    }
}

/* sum w (e^x - 1 - x) for |x| <= 1 by Taylor's series to x^9: the rest is below 3e-7 of the result. */
CLONES static double small_sum(const float *w, const float *d, float mean, int n) {
    double total = 0;
    for (int b = 0; b < n; b += 64) {
        float acc[16] = {0};
        int end = b + 64 < n ? b + 64 : n, i = b;
        for (; i + 16 <= end; i += 16)
            for (int j = 0; j < 16; j++) {
                float x = d[i + j] - mean;
                float p = 1.f / 362880;
                p = p * x + 1.f / 40320;
                p = p * x + 1.f / 5040;
                p = p * x + 1.f / 720;
                p = p * x + 1.f / 120;
                p = p * x + 1.f / 24;
                p = p * x + 1.f / 6;
                p = p * x + 0.5f;
                acc[j] += w[i + j] * (x * x * p);
            }
        for (; i < end; i++) {
            double x = (double)d[i] - (double)mean;
            total += (double)w[i] * (expm1(x) - x);
        }
        for (int j = 0; j < 16; j++) total += (double)acc[j];
    }
    return total;
}

CLONES static void range_sum(const float *w, const float *d, int n, float *lo, float *hi, double *sum) {
    float l[16], h[16];
    double t = 0;
    for (int j = 0; j < 16; j++) l[j] = INFINITY, h[j] = -INFINITY;
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        float s[16];
        for (int j = 0; j < 16; j++) {
            float v = d[i + j];
            l[j] = v < l[j] ? v : l[j];
            h[j] = v > h[j] ? v : h[j];
            s[j] = w[i + j] * v;
        }
        for (int j = 0; j < 16; j++) t += (double)s[j];
    }
    for (; i < n; i++) {
        l[0] = d[i] < l[0] ? d[i] : l[0];
        h[0] = d[i] > h[0] ? d[i] : h[0];
        t += (double)(w[i] * d[i]);
    }
    for (int j = 1; j < 16; j++) {
        l[0] = l[j] < l[0] ? l[j] : l[0];
        h[0] = h[j] > h[0] ? h[j] : h[0];
    }
    *lo = l[0];
    *hi = h[0];
    *sum = t;
}

double ash_vec_kl(const float *w, const float *d, int n) {
    float lo, hi;
    double mean;
    range_sum(w, d, n, &lo, &hi, &mean);
    float m = (float)mean;
    double rest = 0; /* sum w x with the rounded mean; sum w is 1 up to float rounding */
    double r;
    if (lo - m >= -1 && hi - m <= 1) {
        r = small_sum(w, d, m, n);
    } else {
        r = 0;
        for (int i = 0; i < n; i++) {
            double x = (double)d[i] - (double)m;
            r += (double)w[i] * (expm1(x) - x);
        }
    }
    rest = mean - (double)m; /* sum w x */
    /* log(sum w e^x) - sum w x, with sum w e^x = 1 + r + rest */
    return log1p(r + rest) - rest;
}
