/* golden.h - what tests on golden models share: reading cases.json and float files, comparing logits. Data under
 * $ASH_TEST_DATA/golden; ASH_GOLDEN points at a fuller set of the same layout. */
#ifndef GOLDEN_H
#define GOLDEN_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "ashlar/engine.h"
#include "base/base.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct {
    ash_token *t;
    size_t n;
} g_seq;

static inline const char *g_path(char *buf, size_t cap, const char *dir, const char *file) {
    const char *root = getenv("ASH_GOLDEN");
    const char *data = getenv("ASH_TEST_DATA");
    if (root) snprintf(buf, cap, "%s/%s/%s", root, dir, file);
    else snprintf(buf, cap, "%s/golden/%s/%s", data ? data : "tests/data", dir, file);
    return buf;
}

static inline bool g_exists(const char *dir, const char *file) {
    char p[600];
    return access(g_path(p, sizeof p, dir, file), R_OK) == 0;
}

static inline json_t *g_cases(const char *dir) {
    char p[600];
    json_error_t e;
    json_t *j = json_load_file(g_path(p, sizeof p, dir, "cases.json"), 0, &e);
    if (!j) fail_msg("%s: %s", p, e.text);
    return j;
}

static inline g_seq g_ints(const json_t *a) {
    g_seq s = {malloc(json_array_size(a) * sizeof(ash_token) + 1), json_array_size(a)};
    for (size_t i = 0; i < s.n; i++) s.t[i] = (ash_token)json_integer_value(json_array_get(a, i));
    return s;
}

static inline float *g_floats(const char *dir, const char *file, size_t n) {
    char p[600];
    FILE *f = fopen(g_path(p, sizeof p, dir, file), "rb");
    if (!f) fail_msg("cannot open %s", p);
    float *x = malloc(n * sizeof *x + 1);
    assert_int_equal(fread(x, sizeof *x, n, f), n);
    fclose(f);
    return x;
}

static inline ash_model *g_model(const char *dir, const char *file) {
    char p[600];
    ash_model *m;
    ash_error err = {0};
    if (ash_model_load(&m, g_path(p, sizeof p, dir, file), &err) != ASH_OK) fail_msg("%s: %s", p, err.msg);
    return m;
}

static inline ash_session *g_session(ash_model *m, ash_session_opts o) {
    ash_session *s;
    ash_error err = {0};
    if (ash_session_new(&s, m, &o, &err) != ASH_OK) fail_msg("session: %s", err.msg);
    return s;
}

/* Sink that keeps all rows. */
typedef struct {
    float *p;
    size_t cols;
} g_rows;
static inline ash_status g_keep(void *ctx, size_t pos, const float *logits, ash_error *err) {
    (void)err;
    g_rows *r = ctx;
    memcpy(r->p + pos * r->cols, logits, r->cols * sizeof(float));
    return ASH_OK;
}

static inline ash_token g_argmax(const float *x, size_t n) {
    size_t b = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[b]) b = i;
    return (ash_token)b;
}

/* max |a - b| / max |b|, RMS(a - b) / std(b), mean KL(softmax b || softmax a) over rows */
typedef struct {
    double rel, rms, kld;
} g_diff;
static inline g_diff g_compare(const float *a, const float *b, size_t rows, size_t cols) {
    double dmax = 0, bmax = 0, d2 = 0, s = 0, s2 = 0, kld = 0;
    size_t n = rows * cols;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= dmax)) dmax = d; /* a NaN stays */
        bmax = fmax(bmax, fabs((double)b[i]));
        d2 += d * d, s += (double)b[i], s2 += (double)b[i] * (double)b[i];
    }
    for (size_t r = 0; r < rows; r++) {
        const float *x = a + r * cols, *y = b + r * cols;
        double mx = -1e30, my = -1e30, zx = 0, zy = 0;
        for (size_t i = 0; i < cols; i++) mx = fmax(mx, x[i]), my = fmax(my, y[i]);
        for (size_t i = 0; i < cols; i++) zx += exp(x[i] - mx), zy += exp(y[i] - my);
        for (size_t i = 0; i < cols; i++) {
            double lx = x[i] - mx - log(zx), ly = y[i] - my - log(zy);
            kld += exp(ly) * (ly - lx);
        }
    }
    double mean = s / (double)n;
    return (g_diff){dmax / bmax, sqrt(d2 / (double)n) / sqrt(s2 / (double)n - mean * mean), kld / (double)rows};
}

#endif
