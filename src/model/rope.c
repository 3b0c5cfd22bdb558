/* rope.c - angles of the rotary embedding: base, factors from the file, linear and YaRN scaling, LongRoPE's two sets of
 * factors (short for timelines within the original context, long beyond; the magnitude is the same for both).
 * YaRN: Peng et al., "YaRN: Efficient Context Window Extension of Large Language Models", arXiv:2309.00071, section 3:
 * dims that turn more than beta_fast times over the original context keep their angle, those that turn less than
 * beta_slow times are interpolated by 1/factor, between them a ramp over the dim's index. */
#include "model/arch.h"

#include <math.h>
#include <stdio.h>

/* Index of the pair that turns `turns` times in n_ctx positions. */
static double pair_of_turns(int n_rot, double n_ctx, double turns, double base) {
    return n_rot * log(n_ctx / (turns * 2.0 * M_PI)) / (2.0 * log(base));
}

static double num_key(const ash_gguf *g, const char *arch, const char *name, double dflt) {
    char key[128];
    snprintf(key, sizeof key, "%s.rope.%s", arch, name);
    double v = dflt;
    ash_gguf_get_f64(g, key, &v);
    return v;
}

/* One factor per pair of the full-attention rotation, or NULL. */
static ash_status factor_tensor(ash_model *m, const char *name, const float **out, ash_error *err) {
    const ash_gguf_tensor *t = ash_gguf_find_tensor(m->gguf, name);
    const int pairs = m->hp.rope[ASH_ROPE_FULL].n_rot / 2;
    *out = NULL;
    if (!t) return ASH_OK;
    if (t->type != ASH_F32 || t->n_dims != 1 || t->ne[0] != (uint64_t)pairs)
        return ash_fail(err, ASH_E_FORMAT, "tensor %s must be %d float32 values", name, pairs);
    float *f = ash_arena_alloc(&m->arena, (size_t)pairs * sizeof *f);
    if (!f) return ash_fail(err, ASH_E_NOMEM, "out of memory for tensor %s", name);
    memcpy(f, t->data, (size_t)pairs * sizeof *f);
    for (int i = 0; i < pairs; i++)
        if (!(f[i] > 0)) return ash_fail(err, ASH_E_FORMAT, "tensor %s: value %d is not positive", name, i);
    *out = f;
    return ASH_OK;
}

/* rope_freqs (Llama 3, Gemma 4), or a short and a long set (Phi 3). */
static ash_status read_factors(ash_model *m, const float *out[2], ash_error *err) {
    const float *one, *lo, *hi;
    ASH_TRY(factor_tensor(m, "rope_freqs.weight", &one, err));
    ASH_TRY(factor_tensor(m, "rope_factors_short.weight", &lo, err));
    ASH_TRY(factor_tensor(m, "rope_factors_long.weight", &hi, err));
    if (!lo != !hi || (one && lo))
        return ash_fail(err, ASH_E_FORMAT, "rope_factors_short.weight and rope_factors_long.weight go together, without rope_freqs.weight");
    out[0] = one ? one : lo;
    out[1] = hi;
    return ASH_OK;
}

/* n_rot/2 angles of one rotation. */
typedef struct {
    double scale; /* positions are divided by it */
    bool yarn;
    double mix, lo, hi; /* YaRN: share of the ramp, first and last pair of it */
} scaling;

static ash_status make_angles(ash_model *m, const ash_rope *r, const scaling *s, const float *factors, float **out, ash_error *err) {
    const int pairs = r->n_rot / 2;
    float *freq = ash_arena_alloc(&m->arena, (size_t)pairs * sizeof *freq);
    if (!freq) return ash_fail(err, ASH_E_NOMEM, "out of memory for rope factors");
    for (int i = 0; i < pairs; i++) {
        double f = pow(r->base, -2.0 * i / r->n_rot) / (factors ? factors[i] : 1.0f);
        double keep = 0; /* share of the unscaled angle */
        if (s->yarn) keep = s->mix * (1.0 - fmin(1.0, fmax(0.0, (i - s->lo) / fmax(0.001, s->hi - s->lo))));
        freq[i] = (float)(f / s->scale * (1.0 - keep) + f * keep);
    }
    *out = freq;
    return ASH_OK;
}

ash_status ash_rope_init(ash_model *m, ash_error *err) {
    if (!m->hp.n_rope) return ASH_OK;
    const char *arch = m->arch->name;
    const ash_gguf *g = m->gguf;
    ash_hparams *hp = &m->hp;
    char key[128];

    const float *factors[2] = {NULL, NULL}; /* dividing the angles; [1] beyond the original context */
    ASH_TRY(read_factors(m, factors, err));
    ash_str type = {"none", 4};
    snprintf(key, sizeof key, "%s.rope.scaling.type", arch);
    bool have_type = ash_gguf_get_str(g, key, &type);
    double scale = num_key(g, arch, "scaling.factor", num_key(g, arch, "scale_linear", 1.0));
    if (!have_type && scale != 1.0) type = (ash_str){"linear", 6}; /* files from before the type key */
    bool linear = type.n == 6 && memcmp(type.p, "linear", 6) == 0;
    bool yarn = type.n == 4 && memcmp(type.p, "yarn", 4) == 0;
    bool none = (type.n == 4 && memcmp(type.p, "none", 4) == 0) || (type.n == 8 && memcmp(type.p, "longrope", 8) == 0 && factors[1]);
    if (!linear && !yarn && !none)
        return ash_fail(err, ASH_E_UNSUPPORTED, "rope scaling \"%.*s\" is not supported", (int)ASH_MIN(type.n, 40), type.p);
    if (none) scale = 1.0;
    if (!(scale >= 1e-3 && scale <= 1e6)) return ash_fail(err, ASH_E_RANGE, "rope scaling factor %g is out of range", scale);
    double n_orig = num_key(g, arch, "scaling.original_context_length", hp->n_ctx_train);
    double attn_factor = num_key(g, arch, "scaling.attn_factor", num_key(g, arch, "scaling.yarn_attn_factor", 1.0));
    double beta_fast = num_key(g, arch, "scaling.yarn_beta_fast", 32.0), beta_slow = num_key(g, arch, "scaling.yarn_beta_slow", 1.0);
    double mix = num_key(g, arch, "scaling.yarn_ext_factor", 1.0);
    if (!(n_orig >= 1 && n_orig < 1e12 && attn_factor > 0 && attn_factor < 1e3 && beta_fast > 0 && beta_slow > 0 && mix >= 0 && mix <= 1))
        return ash_fail(err, ASH_E_RANGE, "the %s.rope.scaling keys are out of range", arch);

    if (factors[1]) {
        if (n_orig > 1 << 28) return ash_fail(err, ASH_E_RANGE, "key %s.rope.scaling.original_context_length is out of range", arch);
        hp->rope_long_after = (int)n_orig;
    }

    for (int kind = 0; kind < hp->n_rope; kind++) {
        ash_rope *r = &hp->rope[kind];
        const bool scaled = kind == ASH_ROPE_FULL || !m->arch->swa_rope_unscaled, f = scaled && kind == ASH_ROPE_FULL;
        scaling s = {.scale = scaled ? scale : 1.0, .yarn = yarn && scaled, .mix = mix};
        if (s.yarn) {
            s.lo = fmax(0, floor(pair_of_turns(r->n_rot, n_orig, beta_fast, r->base)));
            s.hi = fmin(r->n_rot - 1, ceil(pair_of_turns(r->n_rot, n_orig, beta_slow, r->base)));
        }
        ASH_TRY(make_angles(m, r, &s, f ? factors[0] : NULL, &r->freq, err));
        if (f && factors[1]) ASH_TRY(make_angles(m, r, &s, factors[1], &r->freq_long, err));
        r->magnitude = (float)(scaled ? attn_factor : 1.0);
        if (s.yarn && mix > 0) r->magnitude *= (float)(1.0 + 0.1 * log(s.scale));
    }
    return ASH_OK;
}
