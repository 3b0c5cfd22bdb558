/* compensate.c - the layers of a model through compensated rounding: moments of a layer's inputs, its matrices coded, the result written as
 * a part file; with a prefix the next layer's inputs come from the coded layers. */
#include "bake/compensate.h"

#include "eval/moments.h"
#include "quant/compensate.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

enum { ROWS_BYTES = 64 << 20 };
#define MAGIC 0x31504d4f43485341ull /* "ASHCOMP1" */

typedef struct {
    int layer;
    ash_tap_point p;
    uint64_t at;
} place; /* layer -1: not compensated; at: in the part */

typedef struct {
    uint64_t magic, key, bytes;
    double loss[2];
} part_head;

struct ash_parts {
    ash_map *map; /* by layer; the head comes after the last */
    place *place; /* by tensor */
    int n_layer;
    const char *out;
    double loss[2];
};

typedef struct {
    ash_parts *ps;
    const ash_gguf *src;
    const ash_widen *widen;
    ash_bake_tensor *t;
    size_t n;
    const ash_bake_opts *o;
    const ash_model *m;
    ash_moments *mo;
    uint64_t key;
} job;

static char *part_path(const ash_parts *p, int layer) {
    ash_buf b = {0};
    ash_buf_addf(&b, "%s.comp-%d", p->out, layer);
    if (ash_buf_ok(&b)) return b.p;
    ash_buf_free(&b);
    return NULL;
}

const uint8_t *ash_parts_find(const ash_parts *p, size_t i) {
    if (!p || p->place[i].layer < 0) return NULL;
    return p->map[p->place[i].layer].p + sizeof(part_head) + p->place[i].at;
}

void ash_parts_loss(const ash_parts *p, double loss[2]) {
    loss[0] = p ? p->loss[0] : 0;
    loss[1] = p ? p->loss[1] : 0;
}

void ash_parts_free(ash_parts *p, bool done) {
    if (!p) return;
    for (int l = 0; p->map && l <= p->n_layer; l++) {
        if (!p->map[l].p) continue;
        ash_map_close(&p->map[l]);
        char *path = done ? part_path(p, l) : NULL;
        if (path) unlink(path);
        ash_free(path);
    }
    ash_free(p->map);
    ash_free(p->place);
    ash_free(p);
}

/* ---- which tensors ---- */

static void find_places(job *j) {
    for (size_t i = 0; i < j->n; i++) {
        place *pl = &j->ps->place[i];
        const ash_bake_tensor *b = &j->t[i];
        *pl = (place){.layer = -1};
        if (!b->is_matrix || b->copied || !ash_comp_can(b->to)) continue;
        for (int l = 0; l < j->m->hp.n_layer && pl->layer < 0; l++)
            for (int r = 0; r < ASH_W_COUNT; r++)
                if (j->m->layers[l].name[r] && strcmp(j->m->layers[l].name[r], b->name) == 0) {
                    pl->layer = l, pl->p = ash_role_tap((ash_role)r);
                    break;
                }
        if (pl->layer < 0 && (!j->m->tied || (j->o->compensate.what & ASH_COMPENSATE_TIED)) && strcmp(j->m->head_name, b->name) == 0) pl->layer = j->m->hp.n_layer;
    }
}

/* Everything that decides the bytes of the parts. */
static uint64_t key_of(const job *j, const ash_eval_text *t, uint32_t n_ctx, uint32_t n_chunks) {
    const ash_bake_comp *c = &j->o->compensate;
    struct {
        uint64_t h, v;
    } k = {ash_hash64(ash_version(), strlen(ash_version())), 0};
    const double opts[6] = {(double)c->what, c->passes, c->damp, c->prefix, n_ctx, n_chunks};
#define MIX(p, bytes) k.v = ash_hash64(p, bytes), k.h = ash_hash64(&k, sizeof k)
    MIX(opts, sizeof opts);
    MIX(t->tokens, (size_t)n_ctx * n_chunks * sizeof *t->tokens);
    for (size_t i = 0; i < j->n; i++) {
        const ash_gguf_tensor *g = ash_gguf_tensor_at(j->src, i);
        const uint64_t shape[3] = {(uint64_t)j->t[i].to, j->t[i].ne0, j->t[i].ne1};
        MIX(g->name, strlen(g->name));
        MIX(shape, sizeof shape);
        MIX(g->data, g->n_bytes);
    }
#undef MIX
    return k.h;
}

/* ---- a tensor ---- */

typedef struct {
    const job *j;
    size_t i;
    uint64_t row0, ne0;
    float *rows, *scratch;
    size_t stride;
    _Atomic bool failed;
} read_ctx;

static void read_part(void *ctx, int64_t begin, int64_t end, int ith) {
    read_ctx *c = ctx;
    for (int64_t r = begin; r < end; r++)
        if (!ash_widen_row(c->j->widen, c->j->src, c->i, c->row0 + (uint64_t)r, c->rows + (uint64_t)r * c->ne0,
                           c->scratch + (size_t)ith * c->stride))
            c->failed = true;
}

static ash_status code_tensor(job *j, size_t i, const ash_hess *h, uint8_t *dst, double loss[2], ash_error *err) {
    const ash_bake_tensor *b = &j->t[i];
    ash_pool *pool = ash_moments_pool(j->mo);
    ash_status st = ASH_OK;
    const uint64_t row_bytes = ash_dtype_row_bytes(b->to, b->ne0), slab = ASH_MAX(16, ROWS_BYTES / (b->ne0 * sizeof(float)) / 16 * 16);
    const ash_comp_opts co = {j->o->compensate.what, j->o->compensate.passes};
    read_ctx c = {.j = j, .i = i, .ne0 = b->ne0, .stride = ash_gguf_tensor_at(j->src, i)->ne[0]};
    c.rows = ash_alloc_aligned(ASH_MIN(slab, b->ne1) * b->ne0 * sizeof(float), 64);
    c.scratch = ash_alloc((size_t)ash_pool_threads(pool) * c.stride * sizeof(float));
    if (!c.rows || !c.scratch) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory while encoding tensor %s", b->name);
        goto done;
    }
    for (uint64_t r = 0; r < b->ne1; r += slab) {
        const uint64_t n = ASH_MIN(slab, b->ne1 - r);
        c.row0 = r;
        ash_pool_run(pool, (int64_t)n, 16, read_part, &c);
        if (c.failed) {
            st = ash_fail(err, ASH_E_UNSUPPORTED, "type %s cannot be decoded", ash_dtype_name(b->from));
            goto done;
        }
        st = ash_comp_rows_at(ash_cpu_detect(), b->to, c.rows, dst + r * row_bytes, n, h, &co, pool, loss, err);
        if (st != ASH_OK) {
            if (st == ASH_E_FORMAT && err) /* pos counts weights from the slab's first row */
                ash_fail(err, ASH_E_FORMAT, "the weight in row %llu, column %llu is NaN or infinite",
                         (unsigned long long)(r + err->pos / b->ne0), (unsigned long long)(err->pos % b->ne0));
            ash_error_prefix(err, "tensor %s", b->name);
            goto done;
        }
    }
done:
    ash_free(c.rows);
    ash_free(c.scratch);
    return st;
}

/* H of the source's columns as the widened tensor sees them: its new columns never see an input. */
static ash_status widen_moments(const job *j, size_t i, float **H, int *K, ash_error *err) {
    const size_t n = (size_t)*K, n2 = j->t[i].ne0;
    ash_status st = ASH_OK;
    if (n == n2) return ASH_OK;
    float *order = ash_alloc(n * sizeof *order), *wide = ash_alloc(n2 * sizeof *wide), *G = ash_alloc_aligned(n2 * n2 * sizeof *G, 64);
    if (!order || !wide || !G) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for second moments of %zu columns", n2);
        goto done;
    }
    /* spread gives new columns 1e-4 of the mean: less than any place counted from n */
    for (size_t k = 0; k < n; k++) order[k] = (float)(n + k);
    ash_widen_spread(j->widen, j->src, i, order, wide);
    memset(G, 0, n2 * n2 * sizeof *G);
    for (size_t a = 0; a < n2; a++)
        for (size_t b = a; b < n2; b++)
            if (wide[a] >= (float)n && wide[b] >= (float)n) G[a * n2 + b] = (*H)[((size_t)wide[a] - n) * n + (size_t)wide[b] - n];
    float *old = *H;
    *H = G, *K = (int)n2;
    G = old;
done:
    ash_free(order);
    ash_free(wide);
    ash_free(G);
    return st;
}

/* All tensors of a layer that read at one point share one set of factors. `H` is taken. */
static ash_status code_point(job *j, int layer, ash_tap_point p, float *H, int K, uint8_t *buf, double loss[2], ash_error *err) {
    ash_hess h = {0};
    ash_status st = ASH_OK;
    for (size_t i = 0; i < j->n; i++) {
        const place *pl = &j->ps->place[i];
        if (pl->layer != layer || pl->p != p) continue;
        if (!h.H) {
            st = widen_moments(j, i, &H, &K, err);
            if (st == ASH_OK) {
                /* a tied table is also looked up in: its rows must stay near themselves */
                const double damp = layer == j->m->hp.n_layer && j->m->tied ? ASH_MAX(j->o->compensate.damp, 0.1) : j->o->compensate.damp;
                st = ash_hess_make(&h, H, K, damp, ash_moments_pool(j->mo), err);
                H = NULL;
            }
            if (st != ASH_OK) break;
        }
        st = code_tensor(j, i, &h, buf + sizeof(part_head) + pl->at, loss, err);
        if (st != ASH_OK) break;
    }
    ash_free(H);
    ash_hess_free(&h);
    return st;
}

/* ---- a layer ---- */

static uint64_t part_bytes(job *j, int layer) {
    uint64_t at = 0;
    for (size_t i = 0; i < j->n; i++)
        if (j->ps->place[i].layer == layer) j->ps->place[i].at = at, at += j->t[i].bytes;
    return at;
}

static bool part_open(job *j, int layer, const char *path, uint64_t bytes) {
    ash_map m = {0};
    part_head h;
    if (access(path, R_OK) != 0 || ash_map_open(&m, path, NULL) != ASH_OK) return false;
    if (m.n == sizeof h + bytes) {
        memcpy(&h, m.p, sizeof h);
        if (h.magic == MAGIC && h.key == j->key && h.bytes == bytes) {
            j->ps->map[layer] = m;
            j->ps->loss[0] += h.loss[0], j->ps->loss[1] += h.loss[1];
            return true;
        }
    }
    ash_map_close(&m);
    return false;
}

/* Tensors whose moments are not to be had are left to the plain encoder. */
static void leave(job *j, int layer, ash_tap_point p) {
    for (size_t i = 0; i < j->n; i++)
        if (j->ps->place[i].layer == layer && j->ps->place[i].p == p) j->ps->place[i].layer = -1;
}

static ash_status layer_part(job *j, int layer, ash_error *err) {
    ash_status st = ASH_OK;
    const bool head = layer == j->m->hp.n_layer;
    float *H[ASH_MOMENT_POINTS] = {0};
    int K[ASH_MOMENT_POINTS] = {0};
    uint8_t *buf = NULL;
    char *path = part_path(j->ps, layer);
    uint64_t bytes = part_bytes(j, layer);
    if (!path) return ash_fail(err, ASH_E_NOMEM, "out of memory");
    const bool have = part_open(j, layer, path, bytes), want = !have && bytes;
    if (!head) ASH_TRY_GOTO(ash_moments_layer(j->mo, layer, want, err), done);
    if (!want) goto done;
    if (head) ASH_TRY_GOTO(ash_moments_head(j->mo, &H[0], err), done);
    K[0] = j->m->hp.n_embd;
    for (int p = 0; p < ASH_MOMENT_POINTS; p++) {
        if (!head) H[p] = ash_moments_take(j->mo, (ash_tap_point)p, &K[p]);
        if (!H[p]) leave(j, layer, (ash_tap_point)p);
    }
    bytes = part_bytes(j, layer);
    if (!bytes) goto done;
    part_head h = {MAGIC, j->key, bytes, {0, 0}};
    buf = ash_alloc(sizeof h + bytes);
    if (!buf) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for layer %d", layer);
        goto done;
    }
    for (int p = 0; p < ASH_MOMENT_POINTS; p++) {
        float *m = H[p];
        H[p] = NULL;
        if (m) ASH_TRY_GOTO(code_point(j, layer, (ash_tap_point)p, m, K[p], buf, h.loss, err), done);
    }
    memcpy(buf, &h, sizeof h);
    ASH_TRY_GOTO(ash_file_write_atomic(path, buf, sizeof h + bytes, err), done);
    if (!part_open(j, layer, path, bytes)) st = ash_fail(err, ASH_E_IO, "%s: cannot be read back", path);
done:
    for (int p = 0; p < ASH_MOMENT_POINTS; p++) ash_free(H[p]);
    ash_free(buf);
    ash_free(path);
    return st;
}

/* The coded layer, cropped to the model's own columns and rows, goes into the prefix. */
static ash_status advance(job *j, int layer, ash_error *err) {
    ash_mat w[ASH_W_COUNT] = {0};
    float *mem[ASH_W_COUNT] = {0}, *row = NULL;
    ash_status st = ASH_OK;
    for (int r = 0; r < ASH_W_COUNT; r++) {
        const ash_mat *own = &j->m->layers[layer].w[r];
        size_t i = 0;
        while (i < j->n && (!own->data || strcmp(j->t[i].name, j->m->layers[layer].name[r]) != 0)) i++;
        const uint8_t *bytes = i < j->n ? ash_parts_find(j->ps, i) : NULL;
        const ash_gguf_tensor *t = bytes ? ash_gguf_tensor_at(j->src, i) : NULL;
        if (!bytes || t->ne[1] != (uint64_t)own->n_rows) continue; /* fused tensors: as they are */
        mem[r] = ash_alloc_aligned(t->ne[0] * t->ne[1] * sizeof(float), 64);
        row = ash_alloc(j->t[i].ne0 * sizeof(float));
        if (!mem[r] || !row) {
            st = ash_fail(err, ASH_E_NOMEM, "out of memory for layer %d", layer);
            goto done;
        }
        for (uint64_t k = 0; k < j->t[i].ne1; k++) {
            const int64_t to = ash_widen_source_row(j->widen, j->src, i, k);
            if (to < 0) continue;
            ash_dtype_decode(j->t[i].to, bytes + k * ash_dtype_row_bytes(j->t[i].to, j->t[i].ne0), row, j->t[i].ne0);
            ash_widen_crop(j->widen, j->src, i, row, mem[r] + (uint64_t)to * t->ne[0]);
        }
        ash_free(row);
        row = NULL;
        w[r] = (ash_mat){ASH_F32, (const uint8_t *)mem[r], t->ne[0] * sizeof(float), own->n_rows, own->K};
    }
    st = ash_moments_replace(j->mo, layer, w, err);
done:
    for (int r = 0; r < ASH_W_COUNT; r++) ash_free(mem[r]);
    ash_free(row);
    return st;
}

ash_status ash_parts_make(ash_parts **out, const ash_gguf *src, const ash_widen *widen, ash_bake_tensor *t, size_t n, const char *path,
                          const ash_bake_opts *o, ash_error *err) {
    const ash_bake_comp *c = &o->compensate;
    ash_status st = ASH_OK;
    job j = {.src = src, .widen = widen, .t = t, .n = n, .o = o, .m = c->model};
    *out = NULL;
    if (ash_gguf_n_tensors(ash_model_gguf(c->model)) != n)
        return ash_fail(err, ASH_E_USAGE, "compensation: the model is not the one to be quantized");
    ash_parts *p = j.ps = ash_calloc(1, sizeof *p);
    if (!p) return ash_fail(err, ASH_E_NOMEM, "out of memory");
    p->n_layer = j.m->hp.n_layer;
    p->out = path;
    p->map = ash_calloc((size_t)p->n_layer + 1, sizeof *p->map);
    p->place = ash_calloc(n + 1, sizeof *p->place);
    if (!p->map || !p->place) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory");
        goto done;
    }
    find_places(&j);
    ash_eval_opts eo = ash_eval_defaults();
    eo.n_ctx = c->n_ctx;
    eo.n_chunks = c->n_chunks;
    eo.n_threads = o->n_threads;
    uint32_t n_ctx, n_chunks;
    ASH_TRY_GOTO(ash_eval_windows(c->text, &eo, &n_ctx, &n_chunks, err), done);
    j.key = key_of(&j, c->text, n_ctx, n_chunks);
    ASH_TRY_GOTO(ash_moments_new(&j.mo, j.m, c->text, c->prefix, &eo, err), done);
    for (int l = 0; l <= p->n_layer; l++) {
        ASH_TRY_GOTO(ash_progress_at(&o->progress, "compensate", l, p->n_layer + 1, NULL, err), done);
        ASH_TRY_GOTO(layer_part(&j, l, err), done);
        if (c->prefix && l < p->n_layer) ASH_TRY_GOTO(advance(&j, l, err), done);
    }
    for (size_t i = 0; i < n; i++) t[i].compensated = p->place[i].layer >= 0;
done:
    ash_moments_free(j.mo);
    if (st == ASH_OK)
        *out = p;
    else
        ash_parts_free(p, false);
    return st;
}
