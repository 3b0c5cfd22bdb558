/* bake.c - apply a recipe: decide every tensor's type, predict the exact size, then stream the tensors through
 * the encoders into a file that is written beside and renamed.
 *
 * Owns: which tensors are matrices, fallback types, the metadata that quantizing changes. Rows are read from the
 * source's mapping (widened on the way when asked), so memory stays at a slab of output and a few rows per thread. */
#include "ashlar/bake.h"

#include "ashlar/quant.h"
#include "bake/compensate.h"
#include "base/base.h"

#include <stdio.h>

enum { SLAB_BYTES = 32 << 20, QUANTIZATION_VERSION = 2, BATCH = 8 }; /* BATCH rows at a time fill the encoders' lanes */

typedef struct {
    const ash_gguf *src;
    const ash_bake_opts *o;
    ash_widen *widen;      /* NULL: as it is */
    ash_bake_result r;
    ash_gguf_writer *w;
    ash_pool *pool;
    ash_parts *parts;      /* NULL: nothing is compensated */
} job;

ash_bake_opts ash_bake_defaults(void) { return (ash_bake_opts){.type = ASH_BAKE_RECIPE}; }

ash_bake_comp ash_bake_comp_defaults(void) { return (ash_bake_comp){.n_ctx = 512, .n_chunks = 96, .what = ASH_COMPENSATE_ALL, .passes = 2, .damp = 0.1}; }

void ash_bake_result_free(ash_bake_result *r) {
    if (!r) return;
    ash_free(r->t);
    *r = (ash_bake_result){0};
}

ash_dtype ash_bake_fallback(ash_dtype t, uint64_t n) {
    static const ash_dtype ladder[] = {ASH_IQ4_NL, ASH_Q5_0, ASH_Q8_0, ASH_F16}; /* by bits; block 32, then 1 */
    const ash_dtype_info *i = ash_dtype_get((int)t);
    if (!i || n % i->block_elems == 0) return t;
    for (size_t k = 0; k < ASH_ARRAY_LEN(ladder); k++)
        if (ash_dtype_bpw(ladder[k]) >= ash_dtype_bpw(t) && n % ash_dtype_get(ladder[k])->block_elems == 0) return ladder[k];
    return ASH_F16;
}

/* general.file_type as llama.cpp numbers it; a mix carries the number of the type that most bytes have. */
static uint32_t file_type(ash_dtype t) {
    static const struct { ash_dtype t; uint32_t id; } map[] = {
        {ASH_F32, 0}, {ASH_F16, 1}, {ASH_Q4_0, 2}, {ASH_Q4_1, 3}, {ASH_Q8_0, 7}, {ASH_Q5_0, 8}, {ASH_Q5_1, 9}, {ASH_Q2_K, 10}, {ASH_Q3_K, 11},
        {ASH_Q4_K, 14}, {ASH_Q5_K, 16}, {ASH_Q6_K, 18}, {ASH_IQ2_XXS, 19}, {ASH_IQ2_XS, 20}, {ASH_IQ3_XXS, 23}, {ASH_IQ1_S, 24}, {ASH_IQ4_NL, 25},
        {ASH_IQ3_S, 26}, {ASH_IQ2_S, 28}, {ASH_IQ4_XS, 30}, {ASH_IQ1_M, 31}, {ASH_BF16, 32}, {ASH_TQ1_0, 36}, {ASH_TQ2_0, 37}, {ASH_MXFP4, 38},
        {ASH_Q1_0, 40}, {ASH_Q2_0, 41}};
    for (size_t i = 0; i < ASH_ARRAY_LEN(map); i++)
        if (map[i].t == t) return map[i].id;
    return 1;
}

static ash_status decide(job *j, ash_error *err) {
    const ash_bake_opts *o = j->o;
    size_t n = ash_gguf_n_tensors(j->src), n_rules = o->type == ASH_BAKE_RECIPE ? ash_recipe_n_rules(o->recipe) : 0;
    ash_status st = ASH_OK;
    bool *used = ash_calloc(n_rules + 1, sizeof *used);
    j->r.t = ash_calloc(n + 1, sizeof *j->r.t);
    if (!used || !j->r.t) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for the list of tensors");
        goto done;
    }
    j->r.n = n;
    for (size_t i = 0; i < n; i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(j->src, i);
        ash_bake_tensor *b = &j->r.t[i];
        uint64_t ne[ASH_GGUF_MAX_DIMS];
        ash_widen_shape(j->widen, j->src, i, ne);
        *b = (ash_bake_tensor){.name = t->name, .from = t->type, .to = t->type, .asked = ASH_TYPE_KEEP, .is_matrix = ash_plan_is_matrix(t), .rule = -1};
        b->ne0 = ne[0];
        b->ne1 = ne[1] * ne[2] * ne[3];
        b->n_weights = t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
        if (o->type == ASH_BAKE_RECIPE) {
            b->rule = ash_recipe_find(o->recipe, t->name);
            if (b->rule >= 0) {
                ash_recipe_rule r = ash_recipe_rule_at(o->recipe, (size_t)b->rule);
                bool exact = !strpbrk(r.pattern, "*?");
                if (b->is_matrix) {
                    used[b->rule] = true;
                    b->asked = r.type;
                } else if (exact && r.type != ASH_TYPE_KEEP && r.type != (int)t->type) {
                    st = ash_fail(err, ASH_E_USAGE, "recipe: tensor %s cannot be quantized (only matrices can)", t->name);
                    goto done;
                } else if (exact) {
                    used[b->rule] = true;
                } else {
                    b->rule = -1; /* a wildcard passes over norms and biases */
                }
            }
        } else if (b->is_matrix) {
            if (o->type != ASH_BAKE_FLOAT) b->asked = o->type;
            else b->asked = t->type == ASH_F32 || t->type == ASH_F16 || t->type == ASH_BF16 ? (int)t->type : (int)ASH_F16;
        }
        if (b->asked != ASH_TYPE_KEEP) b->to = (ash_dtype)b->asked;
        bool reshaped = ne[0] != t->ne[0] || ne[1] != t->ne[1];
        if (!b->is_matrix && reshaped && t->type != ASH_F32 && t->type != ASH_F16 && t->type != ASH_BF16) b->to = ASH_F32;
        if (ne[0] % ash_dtype_get(b->to)->block_elems) {
            if (o->type == ASH_BAKE_RECIPE || o->strict || b->asked == ASH_TYPE_KEEP) {
                st = ash_fail(err, ASH_E_USAGE, "tensor %s: rows of %llu weights do not fit %s, whose blocks hold %u", t->name, (unsigned long long)ne[0],
                              ash_dtype_name(b->to), ash_dtype_get(b->to)->block_elems);
                goto done;
            }
            b->to = ash_bake_fallback(b->to, ne[0]);
            b->fallback = true;
            j->r.n_fallback++;
        }
        b->copied = b->to == t->type && !reshaped;
        if (!b->copied && !ash_quant_can(b->to)) {
            st = ash_fail(err, ASH_E_UNSUPPORTED, "tensor %s: no encoder for %s yet", t->name, ash_dtype_name(b->to));
            goto done;
        }
        uint64_t bytes;
        if (ash_mul_ovf(ash_dtype_row_bytes(b->to, b->ne0), b->ne1, &bytes)) {
            st = ash_fail(err, ASH_E_RANGE, "tensor %s: its size overflows", t->name);
            goto done;
        }
        b->bytes = bytes;
    }
    size_t n_matrix = 0;
    for (size_t i = 0; i < n; i++) n_matrix += j->r.t[i].is_matrix;
    if (!n_matrix) {
        st = ash_fail(err, ASH_E_FORMAT, "%s holds no matrix", *ash_gguf_path(j->src) ? ash_gguf_path(j->src) : "the file");
        goto done;
    }
    for (size_t k = 0; k < n_rules; k++)
        if (!used[k]) {
            st = ash_fail(err, ASH_E_USAGE, "recipe: rule %zu (%s) decides no tensor of this model", k + 1, ash_recipe_rule_at(o->recipe, k).pattern);
            goto done;
        }
done:
    ash_free(used);
    return st;
}

/* Header of the new file, and what the whole of it will weigh. */
static ash_status declare(job *j, ash_error *err) {
    uint64_t by_type[ASH_DTYPE_MAX] = {0}, block_bytes = 0, block_weights = 0;
    ash_dtype most = ASH_F32;
    bool quantized = false;
    ASH_TRY(ash_gguf_writer_new(&j->w, err));
    ASH_TRY(ash_gguf_copy_kv(j->w, j->src, err));
    ASH_TRY(ash_widen_kv(j->widen, j->src, j->w, err));
    for (size_t i = 0; i < j->r.n; i++) {
        const ash_bake_tensor *b = &j->r.t[i];
        j->r.n_weights += b->n_weights;
        if (!b->is_matrix) continue;
        by_type[b->to] += b->bytes;
        if (by_type[b->to] > by_type[most]) most = b->to;
        quantized |= ash_dtype_get(b->to)->quantized;
        if (strncmp(b->name, "blk.", 4) == 0) block_bytes += b->bytes, block_weights += b->n_weights;
    }
    ASH_TRY(ash_gguf_set_u32(j->w, "general.file_type", j->o->file_type ? j->o->file_type : file_type(most), err));
    if (quantized) ASH_TRY(ash_gguf_set_u32(j->w, "general.quantization_version", QUANTIZATION_VERSION, err));
    for (size_t i = 0; i < j->r.n; i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(j->src, i);
        uint64_t ne[ASH_GGUF_MAX_DIMS];
        ash_widen_shape(j->widen, j->src, i, ne);
        ASH_TRY(ash_gguf_add_tensor(j->w, t->name, j->r.t[i].to, t->n_dims, ne, err));
    }
    j->r.file_bytes = ash_gguf_writer_bytes(j->w);
    j->r.bpw = j->r.n_weights ? 8.0 * (double)j->r.file_bytes / (double)j->r.n_weights : 0;
    j->r.bpw_blocks = block_weights ? 8.0 * (double)block_bytes / (double)block_weights : 0;
    return ASH_OK;
}

static ash_status prepare(job *j, ash_error *err) {
    const ash_bake_opts *o = j->o;
    uint32_t widen = o->widen;
    if (o->type == ASH_BAKE_RECIPE) {
        if (!o->recipe) return ash_fail(err, ASH_E_USAGE, "no recipe and no type given");
        ash_recipe_info info = ash_recipe_get_info(o->recipe);
        widen = info.widen;
        if (*info.model_sha256 && !o->any_source && *ash_gguf_path(j->src)) {
            char hex[65];
            ASH_TRY(ash_sha256_file(ash_gguf_path(j->src), hex, err));
            if (strcmp(hex, info.model_sha256) != 0)
                return ash_fail(err, ASH_E_USAGE, "%s is not the model this recipe was made for (its SHA-256 begins %.12s, the recipe wants %.12s)",
                                ash_gguf_path(j->src), hex, info.model_sha256);
        }
    }
    if (widen) {
        ASH_TRY(ash_widen_new(&j->widen, j->src, widen, err));
        if (!ash_widen_needed(j->widen)) {
            ash_widen_free(j->widen);
            j->widen = NULL;
        }
    }
    ASH_TRY(decide(j, err));
    return declare(j, err);
}

/* ---- encoding a slab of rows ---- */

typedef struct {
    job *j;
    size_t i;
    ash_dtype to;
    uint64_t row0, ne0, row_bytes;
    const float *imp;    /* ne0 weights per matrix */
    uint64_t imp_rows;   /* rows of a matrix that has weights of its own (an expert); 0: one set for all */
    uint8_t *dst;
    float *scratch;      /* per thread: widened row, then source row */
    size_t stride;
    ash_error *errs;     /* per thread */
} slab;

static void encode_rows(void *ctx, int64_t b, int64_t e, int ith) {
    slab *s = ctx;
    float *rows = s->scratch + (size_t)ith * s->stride, *src = rows + BATCH * s->ne0;
    ash_error *err = &s->errs[ith];
    if (err->code != ASH_OK) return;
    for (int64_t r = b, n; r < e; r += n) {
        const float *imp = s->imp;
        n = ASH_MIN(BATCH, e - r);
        if (s->imp_rows) { /* every expert has its own */
            uint64_t at = s->row0 + (uint64_t)r;
            imp += at / s->imp_rows * s->ne0;
            n = ASH_MIN(n, (int64_t)(s->imp_rows - at % s->imp_rows));
        }
        for (int64_t k = 0; k < n; k++)
            if (!ash_widen_row(s->j->widen, s->j->src, s->i, s->row0 + (uint64_t)(r + k), rows + (uint64_t)k * s->ne0, src)) {
                ash_fail(err, ASH_E_UNSUPPORTED, "type %s cannot be decoded", ash_dtype_name(ash_gguf_tensor_at(s->j->src, s->i)->type));
                return;
            }
        if (ash_quant_rows(s->to, rows, s->dst + (uint64_t)r * s->row_bytes, (uint64_t)n, s->ne0, imp, NULL, err) != ASH_OK) {
            if (err->code == ASH_E_FORMAT) /* pos counts weights from the first of these rows */
                ash_fail(err, ASH_E_FORMAT, "the weight in row %llu, column %llu is NaN or infinite", (unsigned long long)(s->row0 + (uint64_t)r + err->pos / s->ne0),
                         (unsigned long long)(err->pos % s->ne0));
            return;
        }
    }
}

/* One set, widened. An expert that no token chose has all zeros: its columns count the same then. */
static void spread_weights(const job *j, size_t i, const float *raw, float *imp, uint64_t ne0) {
    bool live = false;
    ash_widen_spread(j->widen, j->src, i, raw, imp);
    for (uint64_t k = 0; k < ne0; k++) live = live || imp[k] > 0;
    for (uint64_t k = 0; !live && k < ne0; k++) imp[k] = 1.0f;
}

static ash_status encode_tensor(job *j, size_t i, ash_error *err) {
    const ash_bake_tensor *b = &j->r.t[i];
    const ash_gguf_tensor *t = ash_gguf_tensor_at(j->src, i);
    int nt = ash_pool_threads(j->pool);
    uint64_t row_bytes = ash_dtype_row_bytes(b->to, b->ne0);
    uint64_t rows = ASH_MAX(1, ASH_MIN(b->ne1, SLAB_BYTES / ASH_MAX(row_bytes, 1)));
    ash_status st = ASH_OK;
    slab s = {.j = j, .i = i, .to = b->to, .ne0 = b->ne0, .row_bytes = row_bytes, .stride = BATCH * b->ne0 + t->ne[0]};
    float *imp = NULL;
    s.dst = ash_alloc(rows * row_bytes);
    s.scratch = ash_alloc((size_t)nt * s.stride * sizeof(float));
    s.errs = ash_calloc((size_t)nt, sizeof *s.errs);
    uint64_t n_imp = 1;
    const float *raw = b->is_matrix && ash_dtype_get(b->to)->quantized ? ash_plan_weights(&j->o->importance, t, &n_imp) : NULL;
    if (raw) imp = ash_alloc(n_imp * b->ne0 * sizeof *imp);
    if (!s.dst || !s.scratch || !s.errs || (raw && !imp)) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory while encoding tensor %s", b->name);
        goto done;
    }
    for (uint64_t k = 0; raw && k < n_imp; k++) spread_weights(j, i, raw + k * t->ne[0], imp + k * b->ne0, b->ne0);
    s.imp = imp;
    s.imp_rows = n_imp > 1 ? b->ne1 / n_imp : 0;
    for (uint64_t r = 0; r < b->ne1; r += rows) {
        uint64_t m = ASH_MIN(rows, b->ne1 - r);
        s.row0 = r;
        ash_pool_run(j->pool, (int64_t)m, ASH_MAX(BATCH, (int64_t)(16384 / b->ne0) / BATCH * BATCH), encode_rows, &s);
        for (int k = 0; k < nt; k++)
            if (s.errs[k].code != ASH_OK) {
                if (err) *err = s.errs[k];
                st = s.errs[k].code;
                ash_error_prefix(err, "tensor %s", b->name);
                goto done;
            }
        ASH_TRY_GOTO(ash_gguf_writer_data(j->w, s.dst, m * row_bytes, err), done);
    }
done:
    ash_free(s.dst);
    ash_free(s.scratch);
    ash_free(s.errs);
    ash_free(imp);
    return st;
}

static const ash_gguf_tensor *reusable(const job *j, const ash_bake_tensor *b) {
    if (!b->is_matrix) return NULL;
    for (size_t k = 0; k < j->o->n_reuse; k++) {
        const ash_gguf_tensor *t = j->o->reuse[k] ? ash_gguf_find_tensor(j->o->reuse[k], b->name) : NULL;
        if (t && t->type == b->to && t->ne[0] == b->ne0 && t->ne[1] * t->ne[2] * t->ne[3] == b->ne1) return t;
    }
    return NULL;
}

static void job_free(job *j, bool done) {
    ash_gguf_writer_free(j->w);
    ash_parts_free(j->parts, done);
    ash_widen_free(j->widen);
    ash_pool_free(j->pool);
    ash_bake_result_free(&j->r);
}

ash_status ash_bake_dry(ash_bake_result *r, const ash_gguf *src, const ash_bake_opts *o, ash_error *err) {
    job j = {.src = src, .o = o};
    *r = (ash_bake_result){0};
    ash_status st = prepare(&j, err);
    if (st == ASH_OK) *r = j.r, j.r = (ash_bake_result){0};
    job_free(&j, false);
    return st;
}

ash_status ash_bake_fixed_bytes(uint64_t *bytes, const ash_gguf *src, uint32_t widen, ash_error *err) {
    ash_bake_opts o = ash_bake_defaults();
    ash_bake_result r;
    o.type = ASH_Q8_0; /* any quantized type: the header then has its final entries */
    o.widen = widen;
    ASH_TRY(ash_bake_dry(&r, src, &o, err));
    uint64_t al = ash_gguf_alignment(src), m = 0;
    for (size_t i = 0; i < r.n; i++)
        if (r.t[i].is_matrix) m += (r.t[i].bytes + al - 1) / al * al;
    *bytes = r.file_bytes - ASH_MIN(m, r.file_bytes);
    ash_bake_result_free(&r);
    return ASH_OK;
}

ash_status ash_bake(ash_bake_result *r, const ash_gguf *src, const char *out, const ash_bake_opts *o, ash_error *err) {
    job j = {.src = src, .o = o};
    uint64_t total = 0, at = 0;
    if (r) *r = (ash_bake_result){0};
    ash_status st = prepare(&j, err);
    if (st != ASH_OK) goto done;
    ASH_TRY_GOTO(ash_pool_new(&j.pool, o->n_threads > 0 ? o->n_threads : ash_cpu_count(), err), done);
    if (o->compensate.model) {
        ASH_TRY_GOTO(ash_parts_make(&j.parts, src, j.widen, j.r.t, j.r.n, out, o, err), done);
        ash_parts_loss(j.parts, j.r.loss);
    }
    ASH_TRY_GOTO(ash_gguf_writer_begin(j.w, out, err), done);
    for (size_t i = 0; i < j.r.n; i++) total += j.r.t[i].bytes;
    for (size_t i = 0; i < j.r.n; i++) {
        ash_bake_tensor *b = &j.r.t[i];
        const ash_gguf_tensor *t = ash_gguf_tensor_at(src, i), *old;
        const uint8_t *part = ash_parts_find(j.parts, i);
        if (o->progress.fn && !o->progress.fn(o->progress.ctx, "quantize", (double)at, (double)total, b->name)) {
            st = ash_fail(err, ASH_E_CANCELLED, "cancelled; %s was not written", out);
            goto done;
        }
        if (part) st = ash_gguf_writer_data(j.w, part, b->bytes, err);
        else if (b->copied) st = ash_gguf_writer_data(j.w, t->data, t->n_bytes, err);
        else if ((old = reusable(&j, b))) st = ash_gguf_writer_data(j.w, old->data, old->n_bytes, err);
        else st = encode_tensor(&j, i, err);
        if (st != ASH_OK) goto done;
        at += b->bytes;
    }
    ASH_TRY_GOTO(ash_gguf_writer_finish(j.w, err), done);
    if (o->progress.fn) o->progress.fn(o->progress.ctx, "quantize", (double)total, (double)total, NULL);
    if (r) *r = j.r, j.r = (ash_bake_result){0};
done:
    job_free(&j, st == ASH_OK);
    return st;
}
