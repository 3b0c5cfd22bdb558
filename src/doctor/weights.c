/* weights.c - what a tensor's figures say: alone, beside its kind in the other layers, and beside all other tensors.
 *
 * Thresholds: far from every good file known (tests/long/doctor.py measures the false alarms); powers of two, as a wrong exponent is the
 * usual fault. */
#include "doctor/doctor_int.h"

#include <math.h>
#include <stdlib.h>

enum { KIND_LAYERS = 4, PAGE = 4096 };
static const double LARGE_MATRIX = 1024, LARGE_VECTOR = 65536, ROW_FACTOR = 64, RMS_LEAST = 1e-6, RMS_MOST = 16, KIND_MATRIX = 8,
                    KIND_NORM = 32;
static const double ROPE_LEAST = 0.01, ROPE_MOST = 1e31; /* Gemma 4 turns rotations off with 1e30 */

typedef unsigned long long ull;

static bool ends(const char *s, const char *tail) {
    const size_t n = strlen(s), k = strlen(tail);
    return n >= k && strcmp(s + n - k, tail) == 0;
}

static void rope_factors(ash_doctor *d, const ash_gguf_tensor *t, const doc_stats *s) {
    if (s->negative || s->nonzero != doc_weights(t))
        ash_doc_say(d, ASH_DOC_ROPE_FACTORS, t->name, "some factors are zero or negative");
    else if (s->max > ROPE_MOST || s->max < ROPE_LEAST)
        ash_doc_say(d, ASH_DOC_ROPE_FACTORS, t->name, "the largest factor is %.3g", s->max);
    else if (s->tiny)
        ash_doc_say(d, ASH_DOC_ROPE_FACTORS, t->name, "%llu factors are below 1e-20", (ull)s->tiny);
}

static void judge(ash_doctor *d, const ash_gguf_tensor *t, const doc_stats *s) {
    const uint64_t n = doc_weights(t), n_rows = doc_rows(t);
    const bool vector = doc_is_vector(t), layer = doc_in_layer(t);
    const double rms = sqrt(s->sum2 / (double)n);
    if (s->bad) {
        ash_doc_say(d, ASH_DOC_NONFINITE, t->name, "%llu of %llu values are NaN or infinite, the first in row %llu, column %llu",
                    (ull)s->bad, (ull)n, (ull)(s->bad_at / t->ne[0]), (ull)(s->bad_at % t->ne[0]));
        return;
    }
    if (strncmp(t->name, "rope_", 5) == 0) {
        rope_factors(d, t, s);
        return;
    }
    if (!s->nonzero) {
        if (!ends(t->name, ".bias"))
            ash_doc_say(d, ASH_DOC_ZERO_TENSOR, t->name, "all %llu values are 0", (ull)n); /* biases may be nothing */
        return;
    }
    if (s->max > (vector ? LARGE_VECTOR : LARGE_MATRIX)) ash_doc_say(d, ASH_DOC_LARGE, t->name, "the largest value is %.3g", s->max);
    if (s->tiny > 3) ash_doc_say(d, ASH_DOC_TINY, t->name, "%llu values are below 1e-20 and not 0", (ull)s->tiny);
    if (vector) return;
    if (s->zero_rows > s->zero_tail)
        ash_doc_say(d, ASH_DOC_ZERO_ROWS, t->name, "%llu rows of zeros, the first is row %llu", (ull)s->zero_rows, (ull)s->first_zero);
    else if (s->zero_rows)
        ash_doc_say(d, layer ? ASH_DOC_ZERO_ROWS : ASH_DOC_ZERO_TAIL, t->name, "the last %llu rows are zeros", (ull)s->zero_rows);
    if (2 * s->constant_rows > n_rows && t->ne[0] > 1) {
        ash_doc_say(d, ASH_DOC_CONSTANT, t->name, "%llu rows hold one value each", (ull)s->constant_rows);
        return;
    }
    if (s->run) ash_doc_say(d, ASH_DOC_ZERO_RUN, t->name, "%llu zeros in a row of weights, row %llu", (ull)s->run, (ull)s->run_at);
    if (s->same_rows)
        ash_doc_say(d, ASH_DOC_REPEATED_ROWS, t->name, "%llu rows equal another, the first is row %llu (as row %llu)", (ull)s->same_rows,
                    (ull)s->same_at, (ull)s->same_as);
    if (layer && s->med_row > 0 && (double)s->max_row > ROW_FACTOR * (double)s->med_row)
        ash_doc_say(d, ASH_DOC_SCALE_ROWS, t->name, "row %llu is %.0f times as large as the median row", (ull)s->max_row_at,
                    (double)s->max_row / (double)s->med_row);
    if (rms < RMS_LEAST || rms > RMS_MOST) ash_doc_say(d, ASH_DOC_SCALE_ABS, t->name, "root mean square %.3g", rms);
}

/* ---- against the same kind in other layers ---- */
typedef struct {
    const char *leaf;
    uint32_t i;
} kind;

static int cmp_kind(const void *a, const void *b) {
    const kind *x = a, *y = b;
    const int c = strcmp(x->leaf, y->leaf);
    return c ? c : (x->i > y->i) - (x->i < y->i);
}

static int cmp_double(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* All values the same: the sum of squares tells, up to rounding. */
static bool one_value(const doc_stats *s, uint64_t n) {
    const double v = (double)s->first;
    return n > 1 && s->nonzero == n && fabs(s->max - fabs(v)) <= 1e-7 * s->max && fabs(s->sum2 - v * v * (double)n) <= 1e-5 * s->sum2 &&
           (s->negative == 0 || s->negative == n);
}

static void compare(ash_doctor *d, const kind *k, size_t n, double *v) {
    size_t m = 0, negative = 0, constant = 0;
    for (size_t i = 0; i < n; i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(d->g, k[i].i);
        const doc_stats *q = &d->stats[k[i].i];
        const uint64_t w = doc_weights(t);
        if (q->nonzero && !q->bad) v[m++] = log(sqrt(q->sum2 / (double)w));
        negative += 2 * q->negative > w;
        constant += one_value(q, w);
    }
    if (m < KIND_LAYERS) return;
    qsort(v, m, sizeof *v, cmp_double);
    for (size_t i = 0; i < n; i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(d->g, k[i].i);
        const doc_stats *q = &d->stats[k[i].i];
        const uint64_t w = doc_weights(t);
        const bool vector = doc_is_vector(t), norm = vector && w > 1 && strstr(t->name, "_norm") && ends(t->name, ".weight");
        if (!q->nonzero || q->bad || (vector && !norm)) continue;
        const double off = log(sqrt(q->sum2 / (double)w)) - v[m / 2];
        if (fabs(off) > log(vector ? KIND_NORM : KIND_MATRIX))
            ash_doc_say(d, ASH_DOC_SCALE_ROLE, t->name, "%.3g times the size of the median layer's", exp(off));
        if (norm && 4 * q->negative > 3 * w && 2 * negative < n)
            ash_doc_say(d, ASH_DOC_NORM_SIGN, t->name, "%llu of %llu weights are negative", (ull)q->negative, (ull)w);
        if (norm && 4 * constant <= n && one_value(q, w))
            ash_doc_say(d, ASH_DOC_CONSTANT, t->name, "all %llu weights are %g", (ull)w, (double)q->first);
    }
}

static ash_status kinds(ash_doctor *d, ash_error *err) {
    const size_t n = ash_gguf_n_tensors(d->g);
    size_t m = 0;
    kind *k = ash_alloc((n + 1) * sizeof *k);
    double *v = ash_alloc((n + 1) * sizeof *v);
    if (!k || !v) {
        ash_free(k);
        ash_free(v);
        return ash_fail(err, ASH_E_NOMEM, "out of memory comparing layers");
    }
    for (size_t i = 0; i < n; i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(d->g, i);
        const char *dot = doc_in_layer(t) ? strchr(t->name + 4, '.') : NULL;
        if (dot) k[m++] = (kind){dot + 1, (uint32_t)i};
    }
    qsort(k, m, sizeof *k, cmp_kind);
    for (size_t i = 0, j; i < m; i = j) {
        for (j = i + 1; j < m && strcmp(k[j].leaf, k[i].leaf) == 0;) j++;
        compare(d, k + i, j - i, v);
    }
    ash_free(k);
    ash_free(v);
    return ASH_OK;
}

/* ---- the same bytes twice ---- */
typedef struct {
    uint64_t hash, at;
    uint32_t i;
} print;

static int cmp_print(const void *a, const void *b) {
    const print *x = a, *y = b;
    return x->hash != y->hash ? (x->hash > y->hash) - (x->hash < y->hash) : (x->at > y->at) - (x->at < y->at);
}

/* Whole tensors; `told` marks those, so that their pages are not told again. */
static ash_status twins(ash_doctor *d, bool *told, ash_error *err) {
    const size_t n = ash_gguf_n_tensors(d->g);
    size_t m = 0;
    print *p = ash_alloc((n + 1) * sizeof *p);
    if (!p) return ash_fail(err, ASH_E_NOMEM, "out of memory comparing tensors");
    for (size_t i = 0; i < n; i++)
        if (d->stats[i].hash && d->stats[i].nonzero && doc_in_layer(ash_gguf_tensor_at(d->g, i)))
            p[m++] = (print){d->stats[i].hash, i, (uint32_t)i};
    qsort(p, m, sizeof *p, cmp_print);
    for (size_t i = 1; i < m; i++) {
        const ash_gguf_tensor *a = ash_gguf_tensor_at(d->g, p[i - 1].i), *b = ash_gguf_tensor_at(d->g, p[i].i);
        if (p[i].hash != p[i - 1].hash || a->n_bytes != b->n_bytes) continue;
        told[p[i].i] = told[p[i - 1].i] = true;
        ash_doc_say(d, ASH_DOC_REPEATED_TENSOR, b->name, "the same bytes as %s", a->name);
    }
    ash_free(p);
    return ASH_OK;
}

/* Pages of the file inside of matrices that stand somewhere else too: a piece of a download written twice. */
static ash_status pages(ash_doctor *d, bool *told, ash_error *err) {
    const size_t n = ash_gguf_n_tensors(d->g);
    uint64_t most = 0, m = 0;
    for (size_t i = 0; i < n; i++) most += ash_gguf_tensor_at(d->g, i)->n_bytes / PAGE;
    print *p = ash_alloc((most + 1) * sizeof *p);
    if (!p) return ash_fail(err, ASH_E_NOMEM, "out of memory comparing pages");
    for (size_t i = 0; i < n; i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(d->g, i);
        const uint64_t at = ash_gguf_data_offset(d->g) + t->offset;
        if (!d->stats[i].hash || !doc_in_layer(t) || told[i] || d->stats[i].same_rows) continue;
        for (uint64_t o = (PAGE - at % PAGE) % PAGE; t->n_bytes >= PAGE && o <= t->n_bytes - PAGE; o += PAGE)
            if (memcmp(t->data + o, t->data + o + 1, PAGE - 1) != 0)
                p[m++] = (print){ash_hash64(t->data + o, PAGE), at + o, (uint32_t)i}; /* not of one byte */
    }
    qsort(p, m, sizeof *p, cmp_print);
    for (uint64_t i = 1; i < m; i++)
        if (p[i].hash == p[i - 1].hash && !told[p[i].i]) {
            told[p[i].i] = true;
            ash_doc_say(d, ASH_DOC_REPEATED_PAGES, ash_gguf_tensor_at(d->g, p[i].i)->name, "the %d bytes at %llu stand at %llu (%s) too",
                        (int)PAGE, (ull)p[i].at, (ull)p[i - 1].at, ash_gguf_tensor_at(d->g, p[i - 1].i)->name);
        }
    ash_free(p);
    return ASH_OK;
}

ash_status ash_doc_weights(ash_doctor *d, ash_error *err) {
    const size_t n = ash_gguf_n_tensors(d->g);
    ash_status st;
    bool *told = ash_calloc(n + 1, sizeof *told);
    if (!told) return ash_fail(err, ASH_E_NOMEM, "out of memory comparing tensors");
    for (size_t i = 0; i < n; i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(d->g, i);
        if (t->type != ASH_F64 && (t->type < ASH_I8 || t->type > ASH_I64)) judge(d, t, &d->stats[i]);
    }
    ASH_TRY_GOTO(kinds(d, err), done);
    ASH_TRY_GOTO(twins(d, told, err), done);
    st = pages(d, told, err);
done:
    ash_free(told);
    return st;
}
