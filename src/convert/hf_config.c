/* hf_config.c - config.json: two tables. The first reads what any family calls a number into one hyperparameter, the second
 * writes hyperparameters under the GGUF keys of the families that have them. What does not fit a row (layer patterns, rope
 * scalings, arrays) follows in functions. */
#include "convert/hf_int.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>

typedef long long ll;

/* ---- reading ---- */
typedef struct {
    const char *names; /* in config.json, first that is there */
    size_t field;
    bool is_float;
    unsigned needed; /* families that cannot do without */
    double dflt, max;
} in_row;
#define INT(f, names, needed, dflt, max) \
    { names, offsetof(ash_hf_params, f), false, needed, dflt, max }
#define FLT(f, names, needed, dflt) \
    { names, offsetof(ash_hf_params, f), true, needed, dflt, 1e30 }
static const in_row in_rows[] = {
    INT(n_layer, "num_hidden_layers|n_layer", HF_ALL, 0, ASH_HF_MAX_LAYERS),
    INT(n_ctx, "max_position_embeddings|n_positions", HF_ALL & ~HF_GEMMA3S, 131072, INT32_MAX),
    INT(n_embd, "hidden_size|n_embd", HF_ALL, 0, 1 << 24),
    INT(n_ff, "intermediate_size|n_inner", HF_ALL, 0, 1 << 26),
    INT(n_head, "num_attention_heads|n_head", HF_ALL & ~HF_GEMMA3S, 8, 1 << 20),
    INT(n_kv, "num_key_value_heads", 0, 0, 1 << 20),
    INT(head_dim, "head_dim", 0, 0, 1 << 20),
    INT(n_vocab, "vocab_size", HF_ALL & ~HF_GEMMA3S, 262208, 1 << 24),
    INT(window, "sliding_window", 0, 0, INT32_MAX),
    INT(n_expert, "num_local_experts|num_experts", HF_BIT(MIXTRAL) | HF_BIT(QWEN3MOE), 0, ASH_HF_MAX_EXPERTS),
    INT(n_used, "num_experts_per_tok|top_k_experts", HF_BIT(MIXTRAL) | HF_BIT(QWEN3MOE), 0, ASH_HF_MAX_EXPERTS),
    INT(n_ff_exp, "moe_intermediate_size", HF_BIT(QWEN3MOE), 0, 1 << 26),
    INT(sparse_step, "decoder_sparse_step", 0, 1, 1 << 20),
    INT(n_types, "type_vocab_size", 0, 0, 1 << 20),
    INT(head_dim_full, "global_head_dim", HF_BIT(GEMMA4), 0, 1 << 20),
    INT(n_kv_full, "num_global_key_value_heads", 0, 0, 1 << 20),
    INT(n_shared, "num_kv_shared_layers", 0, 0, ASH_HF_MAX_LAYERS),
    INT(n_ple, "hidden_size_per_layer_input", 0, 0, 1 << 20),
    INT(bos, "bos_token_id", 0, -1, INT32_MAX),
    INT(eos, "eos_token_id", 0, -1, INT32_MAX),
    INT(pad, "pad_token_id", 0, -1, INT32_MAX),
    INT(sep, "sep_token_id", 0, -1, INT32_MAX),
    INT(cls, "cls_token_id", 0, -1, INT32_MAX),
    INT(mask, "mask_token_id", 0, -1, INT32_MAX),
    INT(unk, "unk_token_id", 0, -1, INT32_MAX),
    FLT(rms_eps, "rms_norm_eps", HF_DECODERS & ~HF_GEMMA3S, 1e-6),
    FLT(ln_eps, "layer_norm_eps|layer_norm_epsilon", HF_BERTS, 0),
    FLT(softcap_attn, "attn_logit_softcapping", 0, 0),
    FLT(softcap_final, "final_logit_softcapping", 0, 0),
};

static ash_status read_rows(ash_hf *h, ash_error *err) {
    for (size_t i = 0; i < ASH_ARRAY_LEN(in_rows); i++) {
        const in_row *r = &in_rows[i];
        const json_t *v = ash_hf_get(h->cfg, r->names);
        int64_t x = (int64_t)r->dflt;
        double f = r->dflt;
        int len = (int)strcspn(r->names, "|");
        if (json_is_array(v)) v = json_array_get(v, 0); /* several end tokens: the first */
        if (!v && r->needed >> h->arch->kind & 1) return ash_fail(err, ASH_E_FORMAT, "config.json: %.*s is missing", len, r->names);
        if (v && r->is_float) {
            if (!json_is_number(v) || !(fabs(f = json_number_value(v)) <= r->max))
                return ash_fail(err, ASH_E_FORMAT, "config.json: %.*s is no number", len, r->names);
        } else if (v && (!ash_hf_int(v, &x) || x < (r->dflt < 0 ? -1 : 0) || x > (int64_t)r->max ||
                         (x == 0 && (r->needed >> h->arch->kind & 1))))
            return ash_fail(err, ASH_E_RANGE, "config.json: %.*s is not from 1 to %lld", len, r->names, (ll)r->max);
        void *at = (char *)&h->p + r->field;
        if (r->is_float)
            memcpy(at, &f, sizeof f);
        else
            memcpy(at, &x, sizeof x);
    }
    return ASH_OK;
}

/* The rope settings of one kind of layer ("full_attention", "sliding_attention"), in the current form (rope_parameters, by
 * kind or for all) or the older one (rope_scaling, and numbers at the top). */
static const json_t *rope_get(const ash_hf *h, const char *kind, const char *names) {
    const json_t *all = json_object_get(h->cfg, "rope_parameters"), *part = json_object_get(all, kind), *v = NULL;
    if (json_is_object(part)) return ash_hf_get(part, names);
    if (json_is_object(all)) v = ash_hf_get(all, names);
    if (!v) v = ash_hf_get(json_object_get(h->cfg, "rope_scaling"), names);
    return v ? v : ash_hf_get(h->cfg, names);
}

static double rope_num(const ash_hf *h, const char *kind, const char *names, double dflt) {
    const json_t *v = rope_get(h, kind, names);
    return json_is_number(v) ? json_number_value(v) : dflt;
}

static ash_status read_rope(ash_hf *h, ash_error *err) {
    static const struct {
        const char *type;
        unsigned kinds;
    } known[] = {{"default", HF_ALL},
                 {"linear", HF_DECODERS & ~HF_BIT(GEMMA4)},
                 {"yarn", HF_LLAMAS | HF_QWENS},
                 {"llama3", HF_LLAMAS},
                 {"longrope", HF_BIT(PHI3)},
                 {"su", HF_BIT(PHI3)},
                 {"proportional", HF_BIT(GEMMA4)}};
    ash_hf_params *p = &h->p;
    ash_hf_kind k = h->arch->kind;
    const json_t *type = rope_get(h, "full_attention", "rope_type|type");
    const char *t = json_is_string(type) ? json_string_value(type) : "default";
    if (k == HF_BERT) t = "default";
    size_t i = 0;
    while (i < ASH_ARRAY_LEN(known) && strcmp(known[i].type, t) != 0) i++;
    if (i == ASH_ARRAY_LEN(known) || !(known[i].kinds >> k & 1))
        return ash_fail(err, ASH_E_UNSUPPORTED, "config.json: rope scaling \"%.40s\" is not supported for %s", t, h->arch->hf);
    snprintf(p->rope_type, sizeof p->rope_type, "%s", strcmp(t, "su") == 0 ? "longrope" : t);
    bool gemma = HF_GEMMA3S >> k & 1 || k == HF_GEMMA4;
    p->rope_base =
        k == HF_NOMIC ? rope_num(h, "", "rotary_emb_base", 10000) : rope_num(h, "full_attention", "rope_theta", gemma ? 1e6 : 10000);
    p->rope_base_swa = json_object_get(h->cfg, "rope_parameters") ? rope_num(h, "sliding_attention", "rope_theta", 10000)
                                                                  : rope_num(h, "", "rope_local_base_freq", 10000);
    p->rope_factor = rope_num(h, "full_attention", "factor", 0);
    p->attn_factor = rope_num(h, "full_attention", "attention_factor", 0);
    p->beta_fast = rope_num(h, "full_attention", "beta_fast", 0);
    p->beta_slow = rope_num(h, "full_attention", "beta_slow", 0);
    p->rope_low = rope_num(h, "full_attention", "low_freq_factor", 1);
    p->rope_high = rope_num(h, "full_attention", "high_freq_factor", 4);
    p->rotary = rope_num(h, "full_attention", "partial_rotary_factor", 1);
    const json_t *orig = rope_get(h, "full_attention", "original_max_position_embeddings");
    if (orig && (!ash_hf_int(orig, &p->rope_orig) || p->rope_orig < 1 || p->rope_orig > INT32_MAX))
        return ash_fail(err, ASH_E_RANGE, "config.json: original_max_position_embeddings is no length");
    if (!(p->rope_base > 0 && p->rope_base_swa > 0 && p->rope_base < 1e30 && p->rope_base_swa < 1e30))
        return ash_fail(err, ASH_E_RANGE, "config.json: rope_theta is not positive");
    if (!(p->rotary > 0 && p->rotary <= 1)) return ash_fail(err, ASH_E_RANGE, "config.json: partial_rotary_factor is not from 0 to 1");
    bool scaled = strcmp(t, "linear") == 0 || strcmp(t, "yarn") == 0 || strcmp(t, "llama3") == 0;
    if (scaled && !(p->rope_factor > 0 && p->rope_factor < 1e6))
        return ash_fail(err, ASH_E_RANGE, "config.json: rope scaling \"%s\" without a factor", t);
    if (strcmp(t, "llama3") == 0 && !(p->rope_orig && p->rope_low > 0 && p->rope_high > p->rope_low))
        return ash_fail(
            err, ASH_E_RANGE,
            "config.json: rope scaling \"llama3\" needs original_max_position_embeddings and low_freq_factor < high_freq_factor");
    if (k == HF_NOMIC && rope_num(h, "", "rotary_emb_fraction", 1) != 1)
        return ash_fail(err, ASH_E_UNSUPPORTED, "config.json: rotary_emb_fraction is not 1");
    return ASH_OK;
}

/* Which layers see everything, and which have experts. */
static ash_status read_layers(ash_hf *h, ash_error *err) {
    ash_hf_params *p = &h->p;
    const json_t *types = json_object_get(h->cfg, "layer_types"), *only = json_object_get(h->cfg, "mlp_only_layers"), *v;
    size_t n = (size_t)p->n_layer, i;
    p->full = ash_arena_alloc(&h->arena, n);
    p->dense = ash_arena_alloc(&h->arena, n);
    if (!p->full || !p->dense) return ash_fail(err, ASH_E_NOMEM, "out of memory");
    if (json_is_array(types) && json_array_size(types) != n)
        return ash_fail(err, ASH_E_FORMAT, "config.json: layer_types has %zu entries for %zu layers", json_array_size(types), n);
    int64_t every = 0;
    const json_t *pat = ash_hf_get(h->cfg, "sliding_window_pattern|_sliding_window_pattern");
    if (pat) ash_hf_int(pat, &every);
    for (i = 0; i < n; i++) {
        const char *t = json_string_value(json_array_get(types, i));
        p->full[i] = !t || strcmp(t, "sliding_attention") != 0;
        if (t && strcmp(t, "sliding_attention") != 0 && strcmp(t, "full_attention") != 0)
            return ash_fail(err, ASH_E_UNSUPPORTED, "config.json: layer %zu is of type \"%.40s\"", i, t);
        p->dense[i] = p->sparse_step > 0 && (i + 1) % (size_t)p->sparse_step != 0;
        /* what the GGUF of these families implies without a key */
        bool want = h->arch->kind == HF_GEMMA2 ? i % 2 == 1 : i % 6 == 5;
        if ((HF_BIT(GEMMA2) | HF_GEMMA3S) >> h->arch->kind & 1 && t && p->full[i] != want)
            return ash_fail(err, ASH_E_UNSUPPORTED, "config.json: layer %zu is a %s layer; %s files cannot say so", i, t, h->arch->gguf);
    }
    if (!types && every > 1 && HF_GEMMA3S >> h->arch->kind & 1 && every != 6)
        return ash_fail(err, ASH_E_UNSUPPORTED, "config.json: every %lldth layer is full; %s files cannot say so", (ll)every,
                        h->arch->gguf);
    json_array_foreach(only, i, v) {
        int64_t l;
        if (ash_hf_int(v, &l) && l >= 0 && l < p->n_layer) p->dense[l] = 1;
    }
    if (h->arch->kind == HF_GEMMA4 && !types) return ash_fail(err, ASH_E_FORMAT, "config.json: layer_types is missing");
    return ASH_OK;
}

static ash_status find_arch(ash_hf *h, ash_error *err) {
    const char *name = json_string_value(json_array_get(json_object_get(h->root, "architectures"), 0));
    const json_t *text = json_object_get(h->root, "text_config");
    h->cfg = json_is_object(text) ? (json_t *)text : h->root;
    if (!name) return ash_fail(err, ASH_E_FORMAT, "config.json names no architecture");
    for (int i = 0; (h->arch = ash_hf_arch_at(i)); i++)
        if (strcmp(h->arch->hf, name) == 0) break;
    if (!h->arch) return ash_fail(err, ASH_E_UNSUPPORTED, "config.json: architecture %.80s cannot be converted", name);
    const json_t *q = ash_hf_get(h->root, "quantization_config");
    if (q) {
        const char *m = ash_hf_str(q, "quant_method");
        return ash_fail(err, ASH_E_UNSUPPORTED, "config.json: the weights are quantized (%.40s); convert the unquantized model",
                        m ? m : "quantization_config");
    }
    return ASH_OK;
}

ash_status ash_hf_config_load(ash_hf *h, ash_error *err) {
    ash_hf_params *p = &h->p;
    ASH_TRY(find_arch(h, err));
    ASH_TRY(read_rows(h, err));
    ash_hf_kind k = h->arch->kind;
    p->has_head_dim = p->head_dim > 0;
    if (!p->has_head_dim && HF_GEMMA3S >> k & 1) p->head_dim = 256;
    if (!p->n_kv) p->n_kv = HF_GEMMA3S >> k & 1 && h->cfg != h->root ? 4 : p->n_head;
    if (p->n_head < 1 || p->n_kv < 1) return ash_fail(err, ASH_E_RANGE, "config.json: %lld heads, %lld key heads", (ll)p->n_head, (ll)p->n_kv);
    if (!p->head_dim) {
        if (p->n_embd % p->n_head)
            return ash_fail(err, ASH_E_RANGE, "config.json: %lld heads do not divide a width of %lld", (ll)p->n_head, (ll)p->n_embd);
        p->head_dim = p->n_embd / p->n_head;
    }
    if (p->head_dim % 2) return ash_fail(err, ASH_E_RANGE, "config.json: a head of %lld is not even", (ll)p->head_dim);
    if (p->n_head % p->n_kv)
        return ash_fail(err, ASH_E_RANGE, "config.json: %lld key heads do not divide %lld query heads", (ll)p->n_kv, (ll)p->n_head);
    if (k == HF_MIXTRAL) p->n_ff_exp = p->n_ff;
    if (p->n_used > p->n_expert)
        return ash_fail(err, ASH_E_RANGE, "config.json: %lld of %lld experts are used", (ll)p->n_used, (ll)p->n_expert);
    p->moe_block = ash_hf_bool(h->cfg, "enable_moe_block", false);
    if (p->moe_block && !(p->n_expert && p->n_ff_exp && p->n_used))
        return ash_fail(err, ASH_E_FORMAT, "config.json: experts without their number and width");
    p->double_wide = ash_hf_bool(h->cfg, "use_double_wide_mlp", false);
    p->k_eq_v = ash_hf_bool(h->cfg, "attention_k_eq_v", false);
    const json_t *tie = ash_hf_get(h->cfg, "tie_word_embeddings");
    if (!tie) tie = ash_hf_get(h->root, "tie_word_embeddings");
    p->tied_said = json_is_boolean(tie);
    p->tied = p->tied_said ? json_is_true(tie) : (h->arch->flags & HF_F_TIED) != 0;
    if (p->n_shared > p->n_layer)
        return ash_fail(err, ASH_E_RANGE, "config.json: %lld of %lld layers share keys", (ll)p->n_shared, (ll)p->n_layer);
    if (!p->n_kv_full) p->n_kv_full = p->n_kv;
    if (HF_QWENS >> k & 1 && ash_hf_bool(h->cfg, "use_sliding_window", false))
        return ash_fail(err, ASH_E_UNSUPPORTED, "config.json: use_sliding_window is set; %s files cannot say so", h->arch->gguf);
    ASH_TRY(read_rope(h, err));
    p->n_rot = (int64_t)(p->rotary * (double)p->head_dim);
    ASH_TRY(read_layers(h, err));
    return (HF_BERTS | HF_BIT(GEMMA_EMB)) >> k & 1 ? ash_hf_modules_load(h, err) : ASH_OK;
}

/* ---- dimensions ---- */
int64_t ash_hf_head_dim(const ash_hf *h, int64_t il) {
    return h->arch->kind == HF_GEMMA4 && h->p.full[il] ? h->p.head_dim_full : h->p.head_dim;
}

static int64_t n_kv(const ash_hf *h, int64_t il) {
    return h->arch->kind == HF_GEMMA4 && h->p.full[il] && h->p.k_eq_v ? h->p.n_kv_full : h->p.n_kv;
}

static int64_t n_ff(const ash_hf *h, int64_t il) {
    return h->p.double_wide && il >= h->p.n_layer - h->p.n_shared ? 2 * h->p.n_ff : h->p.n_ff;
}

bool ash_hf_own_kv(const ash_hf *h, int64_t il) { return il < h->p.n_layer - h->p.n_shared; }
bool ash_hf_own_v(const ash_hf *h, int64_t il) { return ash_hf_own_kv(h, il) && !(h->p.k_eq_v && h->p.full[il]); }
bool ash_hf_is_moe(const ash_hf *h, int64_t il) { return h->p.n_expert > 0 && !h->p.moe_block && !h->p.dense[il]; }

int64_t ash_hf_dim(const ash_hf *h, char c, int64_t il) {
    const ash_hf_params *p = &h->p;
    switch (c) {
    case 'V': return p->n_vocab;
    case 'D': return p->n_embd;
    case 'Z': return 3 * p->n_embd;
    case 'F': return n_ff(h, il);
    case 'G': return 2 * n_ff(h, il);
    case 'X': return p->n_ff_exp;
    case 'Y': return 2 * p->n_ff_exp;
    case 'Q': return p->n_head * ash_hf_head_dim(h, il);
    case 'K': return n_kv(h, il) * ash_hf_head_dim(h, il);
    case 'H': return ash_hf_head_dim(h, il);
    case 'W': return (p->n_head + 2 * n_kv(h, il)) * ash_hf_head_dim(h, il);
    case 'E': return p->n_expert;
    case 'P': return p->n_ple;
    case 'L': return p->n_layer * p->n_ple;
    case 'C': return p->n_ctx;
    case 'T': return p->n_types;
    case 'A': return p->n_dense;
    default: return 1;
    }
}

/* ---- writing ---- */
typedef struct {
    const char *key; /* after the architecture */
    size_t field;
    bool is_float;
    unsigned kinds;
    bool zero; /* written when 0, too */
} out_row;
#define OUT(key, f, kinds) \
    { key, offsetof(ash_hf_params, f), false, kinds, false }
#define OUT0(key, f, kinds) \
    { key, offsetof(ash_hf_params, f), false, kinds, true }
#define OUTF(key, f, kinds) \
    { key, offsetof(ash_hf_params, f), true, kinds, false }
static const out_row out_rows[] = {
    OUT("block_count", n_layer, HF_ALL),
    OUT("context_length", n_ctx, HF_ALL),
    OUT("embedding_length", n_embd, HF_ALL),
    OUT("feed_forward_length", n_ff, HF_ALL & ~HF_BIT(GEMMA4)),
    OUT("attention.head_count", n_head, HF_ALL),
    OUT("attention.head_count_kv", n_kv, HF_DECODERS & ~HF_BIT(GEMMA4)),
    OUTF("attention.layer_norm_rms_epsilon", rms_eps, HF_DECODERS),
    OUTF("attention.layer_norm_epsilon", ln_eps, HF_BERTS),
    OUTF("rope.freq_base", rope_base, (HF_DECODERS & ~HF_BIT(GEMMA2)) | HF_BIT(NOMIC)),
    OUTF("rope.freq_base_swa", rope_base_swa, HF_GEMMA3S | HF_BIT(GEMMA4)),
    OUT("vocab_size", n_vocab, HF_LLAMAS),
    OUT("rope.dimension_count", head_dim, HF_LLAMAS),
    OUT("rope.dimension_count", n_rot, HF_BIT(PHI3)),
    OUTF("attn_logit_softcapping", softcap_attn, HF_GEMMAS),
    OUTF("final_logit_softcapping", softcap_final, HF_GEMMAS),
    OUT("attention.sliding_window", window, HF_BIT(MISTRAL) | HF_GEMMAS),
    OUT0("attention.sliding_window", window, HF_BIT(PHI3)),
    OUT("expert_count", n_expert, HF_BIT(MIXTRAL) | HF_BIT(QWEN3MOE) | HF_BIT(GEMMA4)),
    OUT("expert_used_count", n_used, HF_BIT(MIXTRAL) | HF_BIT(QWEN3MOE) | HF_BIT(GEMMA4)),
    OUT("expert_feed_forward_length", n_ff_exp, HF_BIT(QWEN3MOE) | HF_BIT(GEMMA4)),
    OUT0("attention.shared_kv_layers", n_shared, HF_BIT(GEMMA4)),
    OUT0("embedding_length_per_layer_input", n_ple, HF_BIT(GEMMA4)),
    OUT("attention.key_length", head_dim_full, HF_BIT(GEMMA4)),
    OUT("attention.value_length", head_dim_full, HF_BIT(GEMMA4)),
    OUT("attention.key_length_swa", head_dim, HF_BIT(GEMMA4)),
    OUT("attention.value_length_swa", head_dim, HF_BIT(GEMMA4)),
    OUT("rope.dimension_count", head_dim_full, HF_BIT(GEMMA4)),
    OUT("rope.dimension_count_swa", head_dim, HF_BIT(GEMMA4)),
};

typedef struct {
    ash_hf *h;
    ash_gguf_writer *w;
    ash_error *err;
    char key[128];
} sink;

static const char *key_of(sink *s, const char *leaf) {
    snprintf(s->key, sizeof s->key, "%s.%s", s->h->arch->gguf, leaf);
    return s->key;
}
static ash_status put_u32(sink *s, const char *leaf, int64_t v) { return ash_gguf_set_u32(s->w, key_of(s, leaf), (uint32_t)v, s->err); }
static ash_status put_f32(sink *s, const char *leaf, double v) { return ash_gguf_set_f32(s->w, key_of(s, leaf), (float)v, s->err); }

/* One value per layer: an array when they differ (or `always`), else a scalar. */
static ash_status put_layers(sink *s, const char *leaf, int64_t (*of)(const ash_hf *, int64_t)) {
    size_t n = (size_t)s->h->p.n_layer;
    int32_t *v = ash_arena_alloc(&s->h->arena, n * sizeof *v);
    bool same = true;
    if (!v) return ash_fail(s->err, ASH_E_NOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        v[i] = (int32_t)of(s->h, (int64_t)i);
        same &= v[i] == v[0];
    }
    return same ? put_u32(s, leaf, v[0]) : ash_gguf_set_array(s->w, key_of(s, leaf), ASH_GV_I32, v, n, s->err);
}

static ash_status put_gemma4(sink *s) {
    const ash_hf_params *p = &s->h->p;
    size_t n = (size_t)p->n_layer;
    uint8_t *swa = ash_arena_alloc(&s->h->arena, n);
    if (!swa) return ash_fail(s->err, ASH_E_NOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) swa[i] = !p->full[i];
    ASH_TRY(ash_gguf_set_array(s->w, key_of(s, "attention.sliding_window_pattern"), ASH_GV_BOOL, swa, n, s->err));
    ASH_TRY(put_layers(s, "feed_forward_length", n_ff));
    return put_layers(s, "attention.head_count_kv", n_kv);
}

/* What modules.json said. */
static ash_status put_modules(sink *s) {
    const ash_hf_params *p = &s->h->p;
    if (p->pooling) ASH_TRY(put_u32(s, "pooling_type", (uint32_t)p->pooling));
    if (!p->n_dense) return ASH_OK;
    ASH_TRY(put_u32(s, "dense_2_feat_in", (uint32_t)p->n_embd));
    ASH_TRY(put_u32(s, "dense_2_feat_out", (uint32_t)p->n_dense));
    ASH_TRY(put_u32(s, "dense_3_feat_in", (uint32_t)p->n_dense));
    return put_u32(s, "dense_3_feat_out", (uint32_t)p->n_embd);
}

static ash_status put_rope(sink *s) {
    const ash_hf_params *p = &s->h->p;
    if (strcmp(p->rope_type, "linear") == 0 || strcmp(p->rope_type, "yarn") == 0) {
        ASH_TRY(ash_gguf_set_str(s->w, key_of(s, "rope.scaling.type"), p->rope_type, strlen(p->rope_type), s->err));
        ASH_TRY(put_f32(s, "rope.scaling.factor", p->rope_factor));
    }
    if (strcmp(p->rope_type, "yarn") == 0) {
        ASH_TRY(put_u32(s, "rope.scaling.original_context_length", p->rope_orig ? p->rope_orig : p->n_ctx));
        if (p->attn_factor > 0) ASH_TRY(put_f32(s, "rope.scaling.attn_factor", p->attn_factor));
        if (p->beta_fast > 0) ASH_TRY(put_f32(s, "rope.scaling.yarn_beta_fast", p->beta_fast));
        if (p->beta_slow > 0) ASH_TRY(put_f32(s, "rope.scaling.yarn_beta_slow", p->beta_slow));
    }
    if (s->h->arch->kind == HF_PHI3) {
        int64_t orig = p->rope_orig ? p->rope_orig : p->n_ctx;
        ASH_TRY(put_u32(s, "rope.scaling.original_context_length", orig));
        if (strcmp(p->rope_type, "longrope") == 0) { /* LongRoPE, arXiv 2402.13753: sqrt(1 + ln(s) / ln(orig)) */
            double scale = (double)p->n_ctx / (double)orig, f = p->attn_factor;
            if (!(f > 0)) f = scale <= 1 || orig < 2 ? 1 : sqrt(1 + log(scale) / log((double)orig));
            ASH_TRY(put_f32(s, "rope.scaling.attn_factor", f));
        }
    }
    return ASH_OK;
}

ash_status ash_hf_config_keys(ash_hf *h, ash_gguf_writer *w, ash_error *err) {
    sink s = {.h = h, .w = w, .err = err};
    unsigned bit = 1u << h->arch->kind;
    for (size_t i = 0; i < ASH_ARRAY_LEN(out_rows); i++) {
        const out_row *r = &out_rows[i];
        const void *at = (const char *)&h->p + r->field;
        int64_t x = 0;
        double f = 0;
        if (!(r->kinds & bit)) continue;
        if (r->is_float)
            memcpy(&f, at, sizeof f);
        else
            memcpy(&x, at, sizeof x);
        if (r->is_float && f != 0) ASH_TRY(put_f32(&s, r->key, f));
        if (!r->is_float && (x != 0 || r->zero)) ASH_TRY(put_u32(&s, r->key, x));
    }
    bool lengths = h->p.has_head_dim ? (bit & (HF_LLAMAS | HF_BIT(QWEN3) | HF_BIT(QWEN3MOE))) : (bit & (HF_BIT(QWEN3) | HF_BIT(QWEN3MOE)));
    if (lengths || (bit & (HF_BIT(GEMMA2) | HF_GEMMA3S))) {
        ASH_TRY(put_u32(&s, "attention.key_length", h->p.head_dim));
        ASH_TRY(put_u32(&s, "attention.value_length", h->p.head_dim));
    }
    if (bit & HF_BERTS) {
        ASH_TRY(ash_gguf_set_bool(w, key_of(&s, "attention.causal"), false, err));
        if (h->p.n_types) ASH_TRY(ash_gguf_set_u32(w, "tokenizer.ggml.token_type_count", (uint32_t)h->p.n_types, err));
    }
    if (bit & HF_BIT(GEMMA4)) ASH_TRY(put_gemma4(&s));
    if (bit & (HF_BERTS | HF_BIT(GEMMA_EMB))) ASH_TRY(put_modules(&s));
    return put_rope(&s);
}
