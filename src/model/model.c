/* model.c - load a GGUF as a model: find the architecture, read hyperparameters, bind every tensor with its shape
 * checked. A tensor of the file that the architecture does not know is an error: leaving it out would give wrong
 * results without a word. Weights stay in the mapping. */
#include "model/arch.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

struct ash_model_lazy {
    pthread_mutex_t mu;
    ash_vocab *vocab;
};

/* Bound so far, to find the tensors nobody asked for. */
typedef struct {
    ash_model *m;
    size_t n_bound;
    bool *bound; /* by tensor index */
} binder;

static const ash_gguf_tensor *find(binder *b, const char *name, bool needed, ash_error *err) {
    const ash_gguf_tensor *t = ash_gguf_find_tensor(b->m->gguf, name);
    if (!t) {
        if (needed) ash_fail(err, ASH_E_FORMAT, "tensor %s is missing", name);
        return NULL;
    }
    b->bound[t - ash_gguf_tensor_at(b->m->gguf, 0)] = true;
    return t;
}

static ash_status bind_mat(binder *b, const char *name, int64_t n_rows, int64_t n_cols, ash_mat *out, const char **out_name, ash_error *err) {
    const ash_gguf_tensor *t = find(b, name, true, err);
    if (!t) return ASH_E_FORMAT;
    if (t->n_dims != 2 || t->ne[0] != (uint64_t)n_cols || t->ne[1] != (uint64_t)n_rows)
        return ash_fail(err, ASH_E_FORMAT, "tensor %s is %llu x %llu in %d dims; %lld x %lld is expected", name, (unsigned long long)t->ne[1],
                        (unsigned long long)t->ne[0], t->n_dims, (long long)n_rows, (long long)n_cols);
    const ash_dtype_info *d = ash_dtype_get(t->type);
    uint64_t rb = d ? ash_dtype_row_bytes(t->type, t->ne[0]) : 0;
    bool number = d && (d->quantized || t->type == ASH_F32 || t->type == ASH_F16 || t->type == ASH_BF16);
    if (!rb || !number || t->n_bytes != rb * t->ne[1])
        return ash_fail(err, ASH_E_UNSUPPORTED, "tensor %s: type %s is no weight type", name, ash_dtype_name(t->type));
    *out = (ash_mat){t->type, t->data, (size_t)rb, n_rows, (int)n_cols};
    *out_name = t->name;
    return ASH_OK;
}

/* A vector as aligned float32: in place when it is, else a copy in the arena. */
static ash_status bind_vec(binder *b, const char *name, int64_t n, const float **out, ash_error *err) {
    const ash_gguf_tensor *t = find(b, name, true, err);
    if (!t) return ASH_E_FORMAT;
    if (t->n_dims != 1 || t->ne[0] != (uint64_t)n)
        return ash_fail(err, ASH_E_FORMAT, "tensor %s has %llu values in %d dims; %lld are expected", name, (unsigned long long)t->ne[0],
                        t->n_dims, (long long)n);
    if (t->type == ASH_F32 && (uintptr_t)t->data % sizeof(float) == 0) {
        *out = (const float *)(const void *)t->data;
        return ASH_OK;
    }
    if (t->type != ASH_F32 && t->type != ASH_F16 && t->type != ASH_BF16)
        return ash_fail(err, ASH_E_UNSUPPORTED, "tensor %s: a vector of type %s is not supported", name, ash_dtype_name(t->type));
    float *p = ash_arena_alloc(&b->m->arena, (size_t)n * sizeof(float));
    if (!p) return ash_fail(err, ASH_E_NOMEM, "out of memory for tensor %s", name);
    if (!ash_dtype_decode(t->type, t->data, p, (uint64_t)n)) return ash_fail(err, ASH_E_INTERNAL, "tensor %s cannot be decoded", name);
    *out = p;
    return ASH_OK;
}

static const char *const k_role_names[ASH_W_COUNT] = {
#define X(role, name) name,
    ASH_ROLE_LIST(X)
#undef X
};
static const char *const k_norm_names[ASH_N_COUNT] = {
#define X(id, name) name,
    ASH_NORM_LIST(X)
#undef X
};

static ash_status bind_layer(binder *b, int il, ash_error *err) {
    ash_model *m = b->m;
    ash_layer *l = &m->layers[il];
    const int64_t e = m->hp.n_embd, q = (int64_t)l->n_head * l->head_dim, kv = (int64_t)l->n_head_kv * l->head_dim, ff = l->n_ff;
    const int64_t shape[ASH_W_COUNT][2] = {[ASH_W_Q] = {q, e},     [ASH_W_K] = {kv, e},  [ASH_W_V] = {kv, e},   [ASH_W_O] = {e, q},
                                           [ASH_W_GATE] = {ff, e}, [ASH_W_UP] = {ff, e}, [ASH_W_DOWN] = {e, ff}};
    char name[96];
    for (int r = 0; r < ASH_W_COUNT; r++) {
        snprintf(name, sizeof name, "blk.%d.%s.weight", il, k_role_names[r]);
        ASH_TRY(bind_mat(b, name, shape[r][0], shape[r][1], &l->w[r], &l->name[r], err));
    }
    const bool has[ASH_N_COUNT] = {[ASH_N_ATTN] = true,
                                   [ASH_N_Q] = m->arch->qk_norm,
                                   [ASH_N_K] = m->arch->qk_norm,
                                   [ASH_N_POST_ATTN] = m->arch->post_norm,
                                   [ASH_N_FFN] = true,
                                   [ASH_N_POST_FFN] = m->arch->post_norm};
    for (int i = 0; i < ASH_N_COUNT; i++) {
        if (!has[i]) continue;
        snprintf(name, sizeof name, "blk.%d.%s.weight", il, k_norm_names[i]);
        ASH_TRY(bind_vec(b, name, i == ASH_N_Q || i == ASH_N_K ? l->head_dim : e, &l->norm[i], err));
    }
    return ASH_OK;
}

static ash_status bind_all(binder *b, ash_error *err) {
    ash_model *m = b->m;
    const ash_gguf_tensor *t = find(b, "token_embd.weight", true, err);
    if (!t) return ASH_E_FORMAT;
    if (t->n_dims != 2 || t->ne[1] < 1 || t->ne[1] > INT32_MAX)
        return ash_fail(err, ASH_E_FORMAT, "tensor token_embd.weight must have two dims and at most 2^31 rows");
    m->hp.n_vocab = (int)t->ne[1];
    ASH_TRY(bind_mat(b, "token_embd.weight", m->hp.n_vocab, m->hp.n_embd, &m->embd, &m->embd_name, err));
    m->tied = !find(b, "output.weight", false, NULL);
    m->head = m->embd;
    m->head_name = m->embd_name;
    if (!m->tied) ASH_TRY(bind_mat(b, "output.weight", m->hp.n_vocab, m->hp.n_embd, &m->head, &m->head_name, err));
    ASH_TRY(bind_vec(b, "output_norm.weight", m->hp.n_embd, &m->out_norm, err));
    for (int il = 0; il < m->hp.n_layer; il++) ASH_TRY(bind_layer(b, il, err));
    find(b, "rope_freqs.weight", false, NULL);
    for (size_t i = 0; i < ash_gguf_n_tensors(m->gguf); i++)
        if (!b->bound[i])
            return ash_fail(err, ASH_E_UNSUPPORTED, "tensor %s is not known to architecture %s", ash_gguf_tensor_at(m->gguf, i)->name,
                            m->arch->name);
    return ASH_OK;
}

ash_status ash_model_load(ash_model **out, const char *path, ash_error *err) {
    *out = NULL;
    ash_status st;
    binder b = {0};
    ash_model *m = ash_calloc(1, sizeof *m);
    if (!m) return ash_fail(err, ASH_E_NOMEM, "out of memory for a model");
    atomic_init(&m->refs, 1);
    b.m = m;
    m->lazy = ash_calloc(1, sizeof *m->lazy);
    if (!m->lazy) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a model");
        goto fail;
    }
    pthread_mutex_init(&m->lazy->mu, NULL);
    ASH_TRY_GOTO(ash_gguf_open(&m->gguf, path, err), fail);

    ash_str arch;
    if (!ash_gguf_get_str(m->gguf, "general.architecture", &arch)) {
        st = ash_fail(err, ASH_E_FORMAT, "key general.architecture is missing");
        goto fail;
    }
    m->arch = ash_arch_find(arch.p, arch.n);
    if (!m->arch) {
        char names[128];
        st = ash_fail(err, ASH_E_UNSUPPORTED, "architecture \"%.*s\" is not supported (known: %s)", (int)ASH_MIN(arch.n, 60), arch.p,
                      ash_arch_names(names, sizeof names));
        goto fail;
    }
    ASH_TRY_GOTO(ash_hparams_read(m, err), fail);
    b.bound = ash_calloc(ash_gguf_n_tensors(m->gguf), sizeof *b.bound);
    if (!b.bound) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for the tensor list");
        goto fail;
    }
    ASH_TRY_GOTO(bind_all(&b, err), fail);
    ASH_TRY_GOTO(ash_rope_init(m, err), fail);
    ash_free(b.bound);
    *out = m;
    return ASH_OK;
fail:
    if (m->gguf && err) ash_error_prefix(err, "%s", path); /* opening has named it already */
    ash_free(b.bound);
    ash_model_free(m);
    return st;
}

ash_model *ash_model_ref(ash_model *m) {
    atomic_fetch_add(&m->refs, 1);
    return m;
}

void ash_model_free(ash_model *m) {
    if (!m || atomic_fetch_sub(&m->refs, 1) != 1) return;
    if (m->lazy) {
        ash_vocab_free(m->lazy->vocab);
        pthread_mutex_destroy(&m->lazy->mu);
        ash_free(m->lazy);
    }
    ash_gguf_close(m->gguf);
    ash_arena_free(&m->arena);
    ash_free(m);
}

const ash_vocab *ash_model_vocab(const ash_model *m, ash_error *err) {
    pthread_mutex_lock(&m->lazy->mu);
    if (!m->lazy->vocab && ash_vocab_load(&m->lazy->vocab, m->gguf, err) != ASH_OK) m->lazy->vocab = NULL;
    const ash_vocab *v = m->lazy->vocab;
    pthread_mutex_unlock(&m->lazy->mu);
    return v;
}

const ash_gguf *ash_model_gguf(const ash_model *m) { return m->gguf; }
const char *ash_model_arch(const ash_model *m) { return m->arch->name; }
int32_t ash_model_n_layer(const ash_model *m) { return m->hp.n_layer; }
int32_t ash_model_n_embd(const ash_model *m) { return m->hp.n_embd; }
int32_t ash_model_n_vocab(const ash_model *m) { return m->hp.n_vocab; }
int32_t ash_model_n_ctx_train(const ash_model *m) { return m->hp.n_ctx_train; }
bool ash_model_tied(const ash_model *m) { return m->tied; }

const ash_mat *ash_model_mat(const ash_model *m, int layer, ash_role role) { return &m->layers[layer].w[role]; }
const char *ash_model_mat_name(const ash_model *m, int layer, ash_role role) { return m->layers[layer].name[role]; }
const ash_mat *ash_model_embd(const ash_model *m) { return &m->embd; }
const ash_mat *ash_model_head(const ash_model *m) { return &m->head; }
const char *ash_model_role_name(ash_role role) { return k_role_names[role]; }
