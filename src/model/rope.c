/* rope.c - angles of the rotary embedding: base, factors from the file, linear and YaRN scaling.
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

ash_status ash_rope_init(ash_model *m, ash_error *err) {
    const char *arch = m->arch->name;
    const ash_gguf *g = m->gguf;
    ash_hparams *hp = &m->hp;
    char key[128];

    /* factors by pair, dividing the angle (llama 3) */
    const ash_gguf_tensor *ft = ash_gguf_find_tensor(g, "rope_freqs.weight");
    const int pairs = hp->rope[ASH_ROPE_FULL].n_rot / 2;
    float factor_of_pair[2048];
    for (int i = 0; i < pairs; i++) factor_of_pair[i] = 1.0f;
    if (ft) {
        if (ft->type != ASH_F32 || ft->n_dims != 1 || ft->ne[0] != (uint64_t)pairs)
            return ash_fail(err, ASH_E_FORMAT, "tensor rope_freqs.weight must be %d float32 values", pairs);
        memcpy(factor_of_pair, ft->data, (size_t)pairs * sizeof(float));
        for (int i = 0; i < pairs; i++)
            if (!(factor_of_pair[i] > 0)) return ash_fail(err, ASH_E_FORMAT, "tensor rope_freqs.weight: value %d is not positive", i);
    }

    ash_str type = {"none", 4};
    snprintf(key, sizeof key, "%s.rope.scaling.type", arch);
    bool have_type = ash_gguf_get_str(g, key, &type);
    double scale = num_key(g, arch, "scaling.factor", num_key(g, arch, "scale_linear", 1.0));
    if (!have_type && scale != 1.0) type = (ash_str){"linear", 6}; /* files from before the type key */
    bool linear = type.n == 6 && memcmp(type.p, "linear", 6) == 0;
    bool yarn = type.n == 4 && memcmp(type.p, "yarn", 4) == 0;
    bool none = type.n == 4 && memcmp(type.p, "none", 4) == 0;
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

    for (int kind = 0; kind < hp->n_rope; kind++) {
        ash_rope *r = &hp->rope[kind];
        r->freq = ash_arena_alloc(&m->arena, (size_t)pairs * sizeof(float));
        if (!r->freq) return ash_fail(err, ASH_E_NOMEM, "out of memory for rope factors");
        bool scaled = kind == ASH_ROPE_FULL || !m->arch->swa_rope_unscaled;
        double s = scaled ? scale : 1.0;
        bool y = yarn && scaled;
        double lo = 0, hi = 0;
        if (y) {
            lo = fmax(0, floor(pair_of_turns(r->n_rot, n_orig, beta_fast, r->base)));
            hi = fmin(r->n_rot - 1, ceil(pair_of_turns(r->n_rot, n_orig, beta_slow, r->base)));
        }
        for (int i = 0; i < pairs; i++) {
            double f = pow(r->base, -2.0 * i / r->n_rot) / (scaled ? factor_of_pair[i] : 1.0f);
            double keep = 0; /* share of the unscaled angle */
            if (y) keep = mix * (1.0 - fmin(1.0, fmax(0.0, (i - lo) / fmax(0.001, hi - lo))));
            r->freq[i] = (float)(f / s * (1.0 - keep) + f * keep);
        }
        r->magnitude = (float)(scaled ? attn_factor : 1.0);
        if (y && mix > 0) r->magnitude *= (float)(1.0 + 0.1 * log(s));
    }
    return ASH_OK;
}
