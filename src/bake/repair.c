/* repair.c - a low-rank, importance-weighted correction of what quantizing lost, written as a LoRA adapter.
 *
 * Two passes, so that memory stays at one matrix: the first takes the singular values of every matrix' weighted error and divides the
 * budget by what each direction wins per byte; the second makes the factors of those that got a rank. */
#include "ashlar/repair.h"

#include "ashlar/eval.h"
#include "plan/plan_int.h"
#include "quant/lowrank.h"
#include "tensor/f16.h"

#include <math.h>
#include <stdio.h>

enum { DEFAULT_RANK = 64, HARD_RANK = 1024, PASSES = 2, NAME_ROOM = 160 };

typedef struct {
    const ash_gguf_tensor *a, *b; /* original, quantized */
    float *s;                     /* squared singular values, max_rank of them */
    double win;                   /* damage that one more rank would win */
    int n_s;
    double total, energy; /* squared norms of the weighted error and of the weighted original */
} unit;

typedef struct {
    const ash_repair_opts *o;
    ash_repair_result r;
    unit *u;
    size_t n_u;
    ash_pool *pool;
    float *e, *d, *row; /* error matrix, column weights; grown to the largest */
    size_t cap_e, cap_d;
    int max_rank;
} job;

ash_repair_opts ash_repair_defaults(void) { return (ash_repair_opts){.max_rank = DEFAULT_RANK, .seed = 1}; }

void ash_repair_result_free(ash_repair_result *r) {
    if (!r) return;
    ash_free(r->t);
    *r = (ash_repair_result){0};
}

static double damage_of(const job *j, const char *tensor, double e) {
    if (j->o->damage) return j->o->damage(j->o->damage_ctx, tensor, e);
    return ash_plan_typical(ash_plan_role(tensor)) * e;
}

/* The matrices that can be corrected: two dims, in a block, the same shape in both files, and not the same bytes. */
static ash_status list_units(job *j, const ash_gguf *original, const ash_gguf *quantized, ash_error *err) {
    size_t n = ash_gguf_n_tensors(quantized);
    j->u = ash_calloc(n + 1, sizeof *j->u);
    j->r.t = ash_calloc(n + 1, sizeof *j->r.t);
    if (!j->u || !j->r.t) return ash_fail(err, ASH_E_NOMEM, "out of memory for the list of matrices");
    size_t n_matrix = 0;
    for (size_t i = 0; i < n; i++) n_matrix += ash_plan_is_matrix(ash_gguf_tensor_at(quantized, i));
    if (!n_matrix) return ash_fail(err, ASH_E_FORMAT, "%s holds no matrix", *ash_gguf_path(quantized) ? ash_gguf_path(quantized) : "the file");
    for (size_t i = 0; i < n; i++) {
        const ash_gguf_tensor *b = ash_gguf_tensor_at(quantized, i), *a = ash_gguf_find_tensor(original, b->name);
        if (!ash_plan_is_matrix(b) || b->n_dims != 2 || strncmp(b->name, "blk.", 4) != 0) continue;
        if (strlen(b->name) + sizeof ".lora_a" > NAME_ROOM) continue;
        if (!a) return ash_fail(err, ASH_E_USAGE, "the original has no tensor %s: is it another model?", b->name);
        if (a->ne[0] != b->ne[0] || a->ne[1] != b->ne[1])
            return ash_fail(
                err, ASH_E_USAGE,
                "tensor %s is %llu x %llu in the original and %llu x %llu in the quantized file (widened files cannot be repaired)",
                b->name, (unsigned long long)a->ne[1], (unsigned long long)a->ne[0], (unsigned long long)b->ne[1],
                (unsigned long long)b->ne[0]);
        if (a->type == b->type && a->n_bytes == b->n_bytes && memcmp(a->data, b->data, a->n_bytes) == 0) continue;
        j->r.t[j->r.n] = (ash_repair_tensor){.tensor = b->name, .rows = b->ne[1], .cols = b->ne[0]};
        j->u[j->n_u++] = (unit){.a = a, .b = b};
        j->r.n++;
    }
    return j->r.n ? ASH_OK : ash_fail(err, ASH_E_USAGE, "no matrix differs between the two files: nothing to repair");
}

typedef struct {
    job *j;
    const unit *u;
    bool bad;
    double *norms; /* per row: error, original */
} difference;

static void subtract(void *ctx, int64_t begin, int64_t end, int ith) {
    difference *x = ctx;
    const unit *u = x->u;
    int64_t cols = (int64_t)u->a->ne[0];
    float *q = x->j->row + (int64_t)ith * cols;
    uint64_t ra = ash_dtype_row_bytes(u->a->type, (uint64_t)cols), rb = ash_dtype_row_bytes(u->b->type, (uint64_t)cols);
    for (int64_t i = begin; i < end; i++) {
        float *e = x->j->e + i * cols;
        if (!ash_dtype_decode(u->a->type, u->a->data + (uint64_t)i * ra, e, (uint64_t)cols) ||
            !ash_dtype_decode(u->b->type, u->b->data + (uint64_t)i * rb, q, (uint64_t)cols)) {
            x->bad = true;
            return;
        }
        double se = 0, sw = 0;
        for (int64_t k = 0; k < cols; k++) {
            double d2 = (double)x->j->d[k] * x->j->d[k];
            sw += d2 * e[k] * e[k];
            e[k] -= q[k];
            se += d2 * e[k] * e[k];
        }
        x->norms[2 * i] = se;
        x->norms[2 * i + 1] = sw;
    }
}

/* Square roots of the importance, mean 1; a column that no input touched keeps a thousandth, so that its inverse stays tame. */
static void column_weights(const job *j, const char *tensor, uint64_t n, float *d) {
    const float *w = j->o->importance.weights ? j->o->importance.weights(j->o->importance.ctx, tensor, n) : NULL;
    double mean = 0;
    for (uint64_t k = 0; w && k < n; k++) mean += (double)w[k] / (double)n;
    for (uint64_t k = 0; k < n; k++) d[k] = w && mean > 0 ? (float)sqrt(ASH_MAX(w[k] / mean, 1e-6)) : 1.0f;
}

static ash_status load_error(job *j, unit *u, ash_error *err) {
    uint64_t rows = u->a->ne[1], cols = u->a->ne[0], n, bytes;
    if (ash_mul_ovf(rows, cols, &n) || ash_mul_ovf(n, sizeof(float), &bytes))
        return ash_fail(err, ASH_E_RANGE, "tensor %s: its size overflows", u->a->name);
    if (n > j->cap_e) {
        ash_free(j->e);
        j->cap_e = 0;
        j->e = ash_alloc(bytes);
        if (!j->e) return ash_fail(err, ASH_E_NOMEM, "out of memory for tensor %s", u->a->name);
        j->cap_e = n;
    }
    if (cols > j->cap_d) {
        ash_free(j->d);
        ash_free(j->row);
        j->cap_d = 0;
        j->d = ash_alloc(cols * sizeof(float));
        j->row = ash_alloc((size_t)ash_pool_threads(j->pool) * cols * sizeof(float));
        if (!j->d || !j->row) return ash_fail(err, ASH_E_NOMEM, "out of memory for tensor %s", u->a->name);
        j->cap_d = cols;
    }
    column_weights(j, u->a->name, cols, j->d);
    difference x = {j, u, false, ash_alloc(2 * rows * sizeof(double))};
    if (!x.norms) return ash_fail(err, ASH_E_NOMEM, "out of memory for tensor %s", u->a->name);
    ash_pool_run(j->pool, (int64_t)rows, 8, subtract, &x);
    u->total = u->energy = 0;
    for (uint64_t i = 0; i < rows && !x.bad; i++) u->total += x.norms[2 * i], u->energy += x.norms[2 * i + 1];
    ash_free(x.norms);
    if (x.bad) return ash_fail(err, ASH_E_UNSUPPORTED, "tensor %s: its type cannot be decoded", u->a->name);
    if (!isfinite(u->total) || !isfinite(u->energy))
        return ash_fail(err, ASH_E_FORMAT, "tensor %s holds NaN or infinite weights", u->a->name);
    return ASH_OK;
}

/* Factors of one matrix' error at rank k, computed as in the first pass. */
static ash_status factor(job *j, size_t i, int k, float *uu, float *s, float *vv, ash_error *err) {
    const unit *u = &j->u[i];
    return ash_lowrank(j->e, (int64_t)u->a->ne[1], (int64_t)u->a->ne[0], j->d, k, PASSES, j->o->seed + i, j->pool, uu, s, vv, err);
}

static ash_status spectra(job *j, ash_error *err) {
    for (size_t i = 0; i < j->r.n; i++) {
        unit *u = &j->u[i];
        if (j->o->progress.fn && !j->o->progress.fn(j->o->progress.ctx, "repair", (double)i, 2.0 * (double)j->r.n, u->a->name))
            return ash_fail(err, ASH_E_CANCELLED, "cancelled; nothing was written");
        ASH_TRY(load_error(j, u, err));
        uint64_t rows = u->a->ne[1], cols = u->a->ne[0];
        u->n_s = (int)ASH_MIN((uint64_t)j->max_rank, ASH_MIN(rows, cols));
        u->s = ash_alloc((size_t)u->n_s * sizeof(float));
        float *uu = ash_alloc(rows * (uint64_t)u->n_s * sizeof(float)), *vv = ash_alloc(cols * (uint64_t)u->n_s * sizeof(float));
        ash_status st = u->s && uu && vv ? factor(j, i, u->n_s, uu, u->s, vv, err)
                                         : ash_fail(err, ASH_E_NOMEM, "out of memory for the factors of %s", u->a->name);
        ash_free(uu);
        ash_free(vv);
        if (st != ASH_OK) return st;
        for (int k = 0; k < u->n_s; k++) u->s[k] *= u->s[k];
    }
    return ASH_OK;
}

static double rel_err_at(const unit *u, int rank) {
    double left = u->total;
    for (int k = 0; k < rank; k++) left -= u->s[k];
    return u->energy > 0 ? ASH_MAX(left, 0) / u->energy : 0;
}

static void next_win(job *j, size_t i) {
    const ash_repair_tensor *t = &j->r.t[i];
    j->u[i].win = t->rank < j->u[i].n_s ? damage_of(j, t->tensor, t->rel_err_after) - damage_of(j, t->tensor, rel_err_at(&j->u[i], t->rank + 1)) : 0;
}

/* Singular values fall, so the best direction per byte, again and again, is the best division. */
static ash_status divide(job *j, ash_error *err) {
    uint64_t left = j->o->budget_bytes;
    for (size_t i = 0; i < j->r.n; i++) {
        j->r.t[i].rel_err = j->r.t[i].rel_err_after = rel_err_at(&j->u[i], 0);
        j->r.damage += damage_of(j, j->r.t[i].tensor, j->r.t[i].rel_err);
        next_win(j, i);
    }
    j->r.damage_after = j->r.damage;
    for (;;) {
        size_t best = j->r.n;
        double best_win = 0;
        for (size_t i = 0; i < j->r.n; i++) {
            const ash_repair_tensor *t = &j->r.t[i];
            uint64_t cost = 2 * (t->rows + t->cols);
            double win = cost <= left ? j->u[i].win / (double)cost : 0;
            if (win > best_win) best_win = win, best = i;
        }
        if (best == j->r.n) break;
        ash_repair_tensor *t = &j->r.t[best];
        t->rank++;
        t->bytes += 2 * (t->rows + t->cols);
        left -= 2 * (t->rows + t->cols);
        j->r.tensor_bytes += 2 * (t->rows + t->cols);
        j->r.damage_after -= damage_of(j, t->tensor, t->rel_err_after);
        t->rel_err_after = rel_err_at(&j->u[best], t->rank);
        j->r.damage_after += damage_of(j, t->tensor, t->rel_err_after);
        next_win(j, best);
    }
    return j->r.tensor_bytes ? ASH_OK
                             : ash_fail(err, ASH_E_LIMIT, "a budget of %llu bytes holds not one direction of any matrix",
                                        (unsigned long long)j->o->budget_bytes);
}

static ash_status declare(const job *j, const ash_gguf *quantized, ash_gguf_writer *w, ash_error *err) {
    ash_str arch;
    if (!ash_gguf_get_str(quantized, "general.architecture", &arch))
        return ash_fail(err, ASH_E_FORMAT, "key general.architecture is missing");
    ASH_TRY(ash_gguf_set_str(w, "general.architecture", arch.p, arch.n, err));
    ASH_TRY(ash_gguf_set_str(w, "general.type", "adapter", 7, err));
    ASH_TRY(ash_gguf_set_str(w, "general.name", "low-rank repair of a quantized model", 36, err));
    ASH_TRY(ash_gguf_set_u32(w, "general.file_type", 1, err));
    ASH_TRY(ash_gguf_set_str(w, "adapter.type", "lora", 4, err));
    ASH_TRY(ash_gguf_set_f32(w, "adapter.lora.alpha", 0, err)); /* no division by the rank, which differs from matrix to matrix */
    for (size_t i = 0; i < j->r.n; i++) {
        const ash_repair_tensor *t = &j->r.t[i];
        char name[NAME_ROOM];
        if (!t->rank) continue;
        snprintf(name, sizeof name, "%s.lora_a", t->tensor);
        ASH_TRY(ash_gguf_add_tensor(w, name, ASH_F16, 2, (uint64_t[4]){t->cols, (uint64_t)t->rank, 1, 1}, err));
        snprintf(name, sizeof name, "%s.lora_b", t->tensor);
        ASH_TRY(ash_gguf_add_tensor(w, name, ASH_F16, 2, (uint64_t[4]){(uint64_t)t->rank, t->rows, 1, 1}, err));
    }
    return ASH_OK;
}

/* A = diag(f) v^T diag(1/d), B = u diag(s / f), f = sqrt(s): both in the middle of F16's range. */
static ash_status write_pair(job *j, size_t i, ash_gguf_writer *w, ash_error *err) {
    const ash_repair_tensor *t = &j->r.t[i];
    unit *u = &j->u[i];
    ASH_TRY(load_error(j, u, err));
    size_t k = (size_t)u->n_s, r = (size_t)t->rank;
    float *uu = ash_alloc(t->rows * k * sizeof(float)), *vv = ash_alloc(t->cols * k * sizeof(float)), *s = ash_alloc(k * sizeof(float));
    uint16_t *a = ash_alloc(r * t->cols * sizeof *a), *b = ash_alloc(r * t->rows * sizeof *b);
    ash_status st = uu && vv && s && a && b ? factor(j, i, u->n_s, uu, s, vv, err)
                                            : ash_fail(err, ASH_E_NOMEM, "out of memory for the factors of %s", t->tensor);
    for (size_t c = 0; c < r && st == ASH_OK; c++) {
        float f = sqrtf(s[c]);
        for (uint64_t x = 0; x < t->cols; x++) a[c * t->cols + x] = ash_f32_to_f16(f * vv[x * k + c] / j->d[x]);
        for (uint64_t y = 0; y < t->rows; y++) b[y * r + c] = ash_f32_to_f16(f * uu[y * k + c]);
    }
    if (st == ASH_OK) st = ash_gguf_writer_data(w, a, r * t->cols * sizeof *a, err);
    if (st == ASH_OK) st = ash_gguf_writer_data(w, b, r * t->rows * sizeof *b, err);
    ash_free(uu);
    ash_free(vv);
    ash_free(s);
    ash_free(a);
    ash_free(b);
    return st;
}

ash_status ash_repair(ash_repair_result *r, const ash_gguf *original, const ash_gguf *quantized, const char *out, const ash_repair_opts *o,
                      ash_error *err) {
    job j = {.o = o, .max_rank = o->max_rank ? o->max_rank : DEFAULT_RANK};
    ash_gguf_writer *w = NULL;
    ash_status st;
    if (r) *r = (ash_repair_result){0};
    if (j.max_rank < 1 || j.max_rank > HARD_RANK)
        return ash_fail(err, ASH_E_USAGE, "a rank of %d is not possible; 1 to %d is", j.max_rank, (int)HARD_RANK);
    ASH_TRY_GOTO(ash_pool_new(&j.pool, o->n_threads > 0 ? o->n_threads : ash_cpu_count(), err), done);
    ASH_TRY_GOTO(list_units(&j, original, quantized, err), done);
    ASH_TRY_GOTO(spectra(&j, err), done);
    ASH_TRY_GOTO(divide(&j, err), done);
    ASH_TRY_GOTO(ash_gguf_writer_new(&w, err), done);
    ASH_TRY_GOTO(declare(&j, quantized, w, err), done);
    j.r.file_bytes = ash_gguf_writer_bytes(w);
    ASH_TRY_GOTO(ash_gguf_writer_begin(w, out, err), done);
    for (size_t i = 0; i < j.r.n; i++) {
        if (o->progress.fn && !o->progress.fn(o->progress.ctx, "repair", (double)(j.r.n + i), 2.0 * (double)j.r.n, j.r.t[i].tensor)) {
            st = ash_fail(err, ASH_E_CANCELLED, "cancelled; %s was not written", out);
            goto done;
        }
        if (j.r.t[i].rank) ASH_TRY_GOTO(write_pair(&j, i, w, err), done);
    }
    ASH_TRY_GOTO(ash_gguf_writer_finish(w, err), done);
    if (r) *r = j.r, j.r = (ash_repair_result){0};
    st = ASH_OK;
done:
    ash_gguf_writer_free(w);
    for (size_t i = 0; i < j.n_u; i++) ash_free(j.u[i].s);
    ash_free(j.u);
    ash_free(j.e);
    ash_free(j.d);
    ash_free(j.row);
    ash_pool_free(j.pool);
    ash_repair_result_free(&j.r);
    return st;
}
