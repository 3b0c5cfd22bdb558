/* hparams.c - hyperparameters from the file's keys. Nothing is believed: every value has a range, every value that a
 * layer may override is read per layer, and a value that is missing or odd is named. */
#include "model/arch.h"

#include <math.h>
#include <stdio.h>

enum { MAX_LAYERS = 1024, MAX_DIM = 1 << 20, MAX_HEADS = 4096, MAX_HEAD_DIM = 4096, MAX_CTX = 1 << 28, MAX_EXPERTS = 1024 };

typedef struct {
    const ash_gguf *g;
    const char *arch;
    char key[128];
} keys;

static const char *full_key(keys *k, const char *name) {
    snprintf(k->key, sizeof k->key, "%s.%s", k->arch, name);
    return k->key;
}

/* An integer in [lo, hi]; `dflt` < 0 means the key is needed. Layer il of an array, or the scalar for all. */
static ash_status get_int(keys *k, const char *name, int il, int64_t lo, int64_t hi, int64_t dflt, int *out, ash_error *err) {
    const char *key = full_key(k, name);
    const ash_gguf_kv *kv = ash_gguf_find(k->g, key);
    int64_t v = dflt;
    if (!kv) {
        if (dflt < 0) return ash_fail(err, ASH_E_FORMAT, "key %s is missing", key);
    } else if (kv->type == ASH_GV_ARRAY) {
        if (il < 0) return ash_fail(err, ASH_E_UNSUPPORTED, "key %s is an array, a single number is expected", key);
        if (!ash_gguf_array_i64(kv, (uint64_t)il, &v)) return ash_fail(err, ASH_E_FORMAT, "key %s has no integer for layer %d", key, il);
    } else if (!ash_gguf_get_i64(k->g, key, &v)) {
        return ash_fail(err, ASH_E_FORMAT, "key %s is not an integer", key);
    }
    if (v < lo || v > hi)
        return ash_fail(err, ASH_E_RANGE, "key %s is %lld; %lld to %lld is possible", key, (long long)v, (long long)lo, (long long)hi);
    *out = (int)v;
    return ASH_OK;
}

static ash_status get_num(keys *k, const char *name, double lo, double hi, double dflt, float *out, ash_error *err) {
    const char *key = full_key(k, name);
    double v = dflt;
    if (ash_gguf_find(k->g, key)) {
        if (!ash_gguf_get_f64(k->g, key, &v)) return ash_fail(err, ASH_E_FORMAT, "key %s is not a number", key);
    } else if (isnan(dflt)) {
        return ash_fail(err, ASH_E_FORMAT, "key %s is missing", key);
    }
    if (!(v >= lo && v <= hi)) return ash_fail(err, ASH_E_RANGE, "key %s is %g; %g to %g is possible", key, v, lo, hi);
    *out = (float)v;
    return ASH_OK;
}

/* Keys that change what a model computes and that no architecture here computes: a file that sets one differently from
 * its neutral value is refused with the key's name, not run as if the key were not there. */
static const struct {
    const char *name;
    double neutral;
    bool zero_too; /* 0 stands for "not set" */
} k_foreign[] = {
    {"expert_shared_count", 0, false},
    {"expert_shared_feed_forward_length", 0, false},
    {"expert_gating_func", 1 /* softmax */, false},
    {"expert_group_count", 0, false},
    {"expert_weights_scale", 1, true},
    {"expert_weights_norm", 1, false},
    {"leading_dense_block_count", 0, false},
    {"moe_every_n_layers", 0, false},
    {"nextn_predict_layers", 0, false},
    {"attention.max_alibi_bias", 0, false},
    {"attention.clamp_kqv", 0, false},
    {"attention.temperature_length", 0, false},
    {"attention.temperature_scale", 0, false},
    {"attention.q_lora_rank", 0, false},
    {"attention.kv_lora_rank", 0, false},
    {"embedding_scale", 1, true},
    {"residual_scale", 1, true},
    {"logit_scale", 1, true},
    {"use_parallel_residual", 0, false},
    {"router_logit_softcapping", 0, false},
    {"ssm.conv_kernel", 0, false},
};

static ash_status check_foreign(const ash_model *m, keys *k, ash_error *err) {
    for (size_t i = 0; i < ASH_ARRAY_LEN(k_foreign); i++) {
        const char *key = full_key(k, k_foreign[i].name);
        const ash_gguf_kv *kv = ash_gguf_find(m->gguf, key);
        double v = k_foreign[i].neutral;
        bool flag;
        if (!kv) continue;
        if (ash_gguf_get_bool(m->gguf, key, &flag))
            v = flag;
        else if (!ash_gguf_get_f64(m->gguf, key, &v))
            v = NAN;
        if (v != k_foreign[i].neutral && !(v == 0 && k_foreign[i].zero_too))
            return ash_fail(err, ASH_E_UNSUPPORTED, "key %s is set: that part of architecture %s is not supported", key, m->arch->name);
    }
    return ASH_OK;
}

/* Which layers have a window, and which rotation goes with it. */
static ash_status read_windows(ash_model *m, keys *k, ash_error *err) {
    const ash_arch *a = m->arch;
    int window = 0;
    ASH_TRY(get_int(k, "attention.sliding_window", -1, 0, MAX_CTX, 0, &window, err));
    if (a->swa == ASH_SWA_NONE) {
        if (window) return ash_fail(err, ASH_E_UNSUPPORTED, "architecture %s with a sliding window is not supported", a->name);
        return ASH_OK;
    }
    if (!window) return ASH_OK;
    const char *key = full_key(k, "attention.sliding_window_pattern");
    const ash_gguf_kv *kv = ash_gguf_find(k->g, key);
    int pattern = a->swa_pattern;
    bool flags = kv && kv->type == ASH_GV_ARRAY;
    if (!flags && a->swa == ASH_SWA_LISTED) return ash_fail(err, ASH_E_FORMAT, "key %s is missing, or no array", key);
    if (kv && !flags) ASH_TRY(get_int(k, "attention.sliding_window_pattern", -1, 1, MAX_LAYERS, -1, &pattern, err));
    for (int il = 0; il < m->hp.n_layer; il++) {
        bool swa = a->swa == ASH_SWA_ALL;
        int64_t v;
        if (!flags && !swa) swa = il % pattern < pattern - 1;
        if (flags) {
            if (!ash_gguf_array_i64(kv, (uint64_t)il, &v)) return ash_fail(err, ASH_E_FORMAT, "key %s has no value for layer %d", key, il);
            swa = v != 0;
        }
        m->layers[il].window = swa ? window : 0;
        m->layers[il].rope = swa && a->swa_rope_base > 0 ? ASH_ROPE_SWA : ASH_ROPE_FULL;
    }
    return ASH_OK;
}

/* The last `shared` layers read the K and V of the last layer before them that has a window, or has none, as they do. */
static ash_status read_sharing(ash_model *m, keys *k, ash_error *err) {
    int shared = 0;
    ASH_TRY(get_int(k, "attention.shared_kv_layers", -1, 0, m->hp.n_layer - 1, 0, &shared, err));
    int own = m->hp.n_layer - shared;
    for (int il = 0; il < m->hp.n_layer; il++) {
        ash_layer *l = &m->layers[il];
        l->kv_layer = il;
        if (il < own) {
            m->hp.last_kv = il;
            continue;
        }
        int from = own - 1;
        while (from >= 0 && (m->layers[from].window > 0) != (l->window > 0)) from--;
        if (from < 0) return ash_fail(err, ASH_E_FORMAT, "layer %d shares keys and values, but no layer of its kind before it has any", il);
        ash_layer *src = &m->layers[from];
        l->kv_layer = from;
        if (src->head_dim != l->head_dim || src->n_head_kv != l->n_head_kv)
            return ash_fail(err, ASH_E_FORMAT, "layer %d shares the keys of layer %d, which have another shape", il, l->kv_layer);
        src->kv_lent = true;
    }
    return ASH_OK;
}

/* Heads and widths of every layer. */
static ash_status read_shapes(ash_model *m, keys *k, ash_error *err) {
    ash_hparams *hp = &m->hp;
    for (int il = 0; il < hp->n_layer; il++) {
        ash_layer *l = &m->layers[il];
        int v_dim;
        l->out_scale = 1.0f;
        l->v_norm = m->arch->v_norm;
        ASH_TRY(get_int(k, "attention.head_count", il, 1, MAX_HEADS, -1, &l->n_head, err));
        ASH_TRY(get_int(k, "attention.head_count_kv", il, 1, MAX_HEADS, l->n_head, &l->n_head_kv, err));
        if (l->n_head % l->n_head_kv)
            return ash_fail(err, ASH_E_FORMAT, "layer %d: %d query heads are no multiple of %d key heads", il, l->n_head, l->n_head_kv);
        ASH_TRY(get_int(k, "attention.key_length", -1, 2, MAX_HEAD_DIM, hp->n_embd / l->n_head, &l->head_dim, err));
        ASH_TRY(get_int(k, "attention.value_length", -1, 2, MAX_HEAD_DIM, l->head_dim, &v_dim, err));
        if (l->window) {
            ASH_TRY(get_int(k, "attention.key_length_swa", -1, 2, MAX_HEAD_DIM, l->head_dim, &l->head_dim, err));
            ASH_TRY(get_int(k, "attention.value_length_swa", -1, 2, MAX_HEAD_DIM, v_dim, &v_dim, err));
        }
        if (v_dim != l->head_dim)
            return ash_fail(err, ASH_E_UNSUPPORTED, "layer %d: value heads of %d and key heads of %d elements are not supported", il, v_dim,
                            l->head_dim);
        ASH_TRY(get_int(k, "feed_forward_length", il, 1, MAX_DIM, -1, &l->n_ff, err));
        if ((int64_t)l->n_head * l->head_dim > MAX_DIM)
            return ash_fail(err, ASH_E_RANGE, "layer %d: %d heads of %d elements are too many", il, l->n_head, l->head_dim);
        hp->max_q = ASH_MAX(hp->max_q, l->n_head * l->head_dim);
        hp->max_kv = ASH_MAX(hp->max_kv, l->n_head_kv * l->head_dim);
        hp->max_ff = ASH_MAX(hp->max_ff, l->n_ff);
        hp->max_head = ASH_MAX(hp->max_head, l->n_head);
        hp->max_head_dim = ASH_MAX(hp->max_head_dim, l->head_dim);
        hp->max_window = ASH_MAX(hp->max_window, l->window);
    }
    return ASH_OK;
}

static ash_status read_experts(ash_model *m, keys *k, ash_error *err) {
    ash_hparams *hp = &m->hp;
    ASH_TRY(get_int(k, "expert_count", -1, 0, MAX_EXPERTS, 0, &hp->n_expert, err));
    if (!hp->n_expert) return ASH_OK;
    if (!m->arch->experts)
        return ash_fail(err, ASH_E_UNSUPPORTED, "architecture %s with %d experts is not supported", m->arch->name, hp->n_expert);
    ASH_TRY(get_int(k, "expert_used_count", -1, 1, hp->n_expert, -1, &hp->n_expert_used, err));
    return get_int(k, "expert_feed_forward_length", -1, 1, MAX_DIM, m->layers[0].n_ff, &hp->n_ff_exp, err);
}

/* Base and dims of the rotations; factors and scaling follow in rope.c. */
static ash_status read_rope(ash_model *m, keys *k, ash_error *err) {
    const ash_arch *a = m->arch;
    ash_hparams *hp = &m->hp;
    hp->rope_neox = a->rope_neox;
    if (a->no_rope) {
        for (int il = 0; il < hp->n_layer; il++) m->layers[il].rope = ASH_ROPE_NONE;
        return ASH_OK;
    }
    int hd[ASH_ROPE_KINDS] = {0};
    for (int il = 0; il < hp->n_layer; il++) {
        const ash_layer *l = &m->layers[il];
        int *d = &hd[l->rope];
        if (*d && *d != l->head_dim)
            return ash_fail(err, ASH_E_UNSUPPORTED, "layer %d: heads of %d elements beside heads of %d are not supported", il, l->head_dim,
                            *d);
        *d = l->head_dim;
    }
    ash_rope *full = &hp->rope[ASH_ROPE_FULL], *swa = &hp->rope[ASH_ROPE_SWA];
    int most = hd[ASH_ROPE_FULL] ? hd[ASH_ROPE_FULL] : MAX_HEAD_DIM;
    ASH_TRY(get_int(k, "rope.dimension_count", -1, 2, most, hd[ASH_ROPE_FULL] ? hd[ASH_ROPE_FULL] : hd[ASH_ROPE_SWA], &full->n_rot, err));
    ASH_TRY(get_num(k, "rope.freq_base", 1, 1e12, 10000.0, &full->base, err));
    hp->n_rope = 1;
    if (a->swa_rope_base > 0 && hp->max_window) {
        ASH_TRY(get_int(k, "rope.dimension_count_swa", -1, 2, hd[ASH_ROPE_SWA], ASH_MIN(full->n_rot, hd[ASH_ROPE_SWA]), &swa->n_rot, err));
        ASH_TRY(get_num(k, "rope.freq_base_swa", 1, 1e12, a->swa_rope_base, &swa->base, err));
        hp->n_rope = 2;
    }
    for (int i = 0; i < hp->n_rope; i++)
        if (hp->rope[i].n_rot % 2) return ash_fail(err, ASH_E_FORMAT, "key %s.rope.dimension_count is odd: %d", a->name, hp->rope[i].n_rot);
    return ASH_OK;
}

ash_status ash_hparams_read(ash_model *m, ash_error *err) {
    const ash_arch *a = m->arch;
    ash_hparams *hp = &m->hp;
    keys k = {m->gguf, a->name, {0}};
    ASH_TRY(check_foreign(m, &k, err));
    ASH_TRY(get_int(&k, "block_count", -1, 1, MAX_LAYERS, -1, &hp->n_layer, err));
    ASH_TRY(get_int(&k, "embedding_length", -1, 1, MAX_DIM, -1, &hp->n_embd, err));
    ASH_TRY(get_int(&k, "context_length", -1, 1, MAX_CTX, 2048, &hp->n_ctx_train, err));
    ASH_TRY(get_num(&k, a->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", 0, 1, NAN, &hp->eps, err));
    m->layers = ash_arena_alloc(&m->arena, (size_t)hp->n_layer * sizeof *m->layers);
    if (!m->layers) return ash_fail(err, ASH_E_NOMEM, "out of memory for %d layers", hp->n_layer);
    memset(m->layers, 0, (size_t)hp->n_layer * sizeof *m->layers);
    ASH_TRY(read_windows(m, &k, err));
    ASH_TRY(read_shapes(m, &k, err));
    ASH_TRY(read_sharing(m, &k, err));
    ASH_TRY(read_experts(m, &k, err));
    ASH_TRY(read_rope(m, &k, err));
    if (a->ple) ASH_TRY(get_int(&k, "embedding_length_per_layer_input", -1, 0, MAX_DIM, 0, &hp->n_ple, err));
    if ((int64_t)hp->n_ple * hp->n_layer > MAX_DIM)
        return ash_fail(err, ASH_E_RANGE, "per-layer embeddings of %d for %d layers are too wide", hp->n_ple, hp->n_layer);

    hp->act = a->act;
    hp->layer_norm = a->layer_norm;
    hp->causal = !a->encoder;
    bool causal;
    if (ash_gguf_get_bool(m->gguf, full_key(&k, "attention.causal"), &causal) && causal != hp->causal)
        return ash_fail(err, ASH_E_UNSUPPORTED, "architecture %s with %s attention is not supported", a->name,
                        causal ? "causal" : "bidirectional");
    int pooling;
    ASH_TRY(get_int(&k, "pooling_type", -1, 0, ASH_POOL_LAST, ASH_POOL_NONE, &pooling, err));
    hp->pooling = (ash_pool_kind)pooling;
    hp->embd_scale = a->embd_sqrt ? sqrtf((float)hp->n_embd) : 1.0f;
    const ash_layer *l0 = &m->layers[0];
    double dflt = a->attn_scale > 0 ? (double)a->attn_scale : 1.0 / sqrt((double)l0->head_dim);
    if (a->attn_scale <= 0)
        for (int il = 1; il < hp->n_layer; il++)
            if (m->layers[il].head_dim != l0->head_dim)
                return ash_fail(err, ASH_E_UNSUPPORTED, "architecture %s with heads of different sizes is not supported", a->name);
    if (a->wide_attn_layers && hp->n_layer == a->wide_attn_layers) dflt = 1.0 / sqrt((double)hp->n_embd / l0->n_head);
    ASH_TRY(get_num(&k, "attention.scale", 0, 1e6, dflt, &hp->attn_scale, err));
    if (hp->attn_scale == 0) hp->attn_scale = (float)dflt; /* llama.cpp's files: 0 stands for the default */
    ASH_TRY(get_num(&k, "attn_logit_softcapping", 0, 1e6, 0, &hp->attn_softcap, err));
    return get_num(&k, "final_logit_softcapping", 0, 1e6, 0, &hp->final_softcap, err);
}
