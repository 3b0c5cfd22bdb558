/* prior.c - sensitivities before any sweep. By role: a table. By layer: how much of the residual stream the layer's attention (or FFN) writes. An error of a
 * matrix is relative to that output, so it disturbs the stream by its share; what is already large in the stream hides what is added to it. Needs importance,
 * which gives the energy of every output, E|W x|^2 ~ sum imp_j |W_j|^2. Over the matrices of SmolLM2 135M and Gemma 3 270M the rank correlation with a sweep rises
 * from 0.74 to 0.82 and from 0.72 to 0.79; the exponent is the same for both. */
#include "plan/plan_int.h"

#include "model/arch.h"

#include <math.h>
#include <stdio.h>

static const double EXPONENT = 0.25;

/* Energy of a post-norm's output: the sum of its squared weights. 0: there is none. */
static double norm_energy(const ash_gguf *g, int layer, const char *leaf) {
    char name[96];
    double s = 0;
    snprintf(name, sizeof name, "blk.%d.%s.weight", layer, leaf);
    const ash_gguf_tensor *t = ash_gguf_find_tensor(g, name);
    if (!t || t->type != ASH_F32 || t->n_dims != 1 || t->ne[0] > 1u << 20) return 0;
    for (uint64_t i = 0; i < t->ne[0]; i++) {
        float x;
        memcpy(&x, t->data + i * sizeof x, sizeof x);
        s += (double)x * (double)x;
    }
    return isfinite(s) ? s : 0;
}

static bool writes_attn(int role) { return role == ASH_ROLE_O; }
static bool writes_ffn(int role) { return role == ASH_ROLE_DOWN || role == ASH_ROLE_EXP_DOWN; }

static bool by_attn(int role) { return role >= ASH_ROLE_Q && role <= ASH_ROLE_O; }
static bool by_ffn(int role) { return (role >= ASH_ROLE_GATE && role <= ASH_ROLE_DOWN) || (role >= ASH_ROLE_EXP_GATE && role <= ASH_ROLE_EXP_DOWN); }

ash_status ash_plan_prior(ash_planner *p, ash_error *err) {
    int32_t n_layer = 0;
    double stream = 0, mean = 0;
    size_t n = 0;
    ash_str arch = {0};
    for (size_t i = 0; i < p->n; i++) {
        p->u[i].prior = 0;
        n_layer = ASH_MAX(n_layer, p->u[i].pub.layer + 1);
        if (p->u[i].pub.role == ASH_ROLE_EMBD) stream = p->u[i].raw * (double)ash_gguf_tensor_at(p->g, p->u[i].tensor)->ne[0];
    }
    if (!p->o.importance.weights || !n_layer || !(stream > 0)) return ASH_OK;
    ash_gguf_get_str(p->g, "general.architecture", &arch);
    const ash_arch *a = arch.p ? ash_arch_find(arch.p, arch.n) : NULL;
    if (a && a->embd_sqrt) {
        for (size_t i = 0; i < p->n; i++)
            if (p->u[i].pub.role == ASH_ROLE_EMBD) stream *= (double)ash_gguf_tensor_at(p->g, p->u[i].tensor)->ne[0];
    }
    double *out = ash_calloc(2 * (size_t)n_layer, sizeof *out); /* energy that attention and FFN of each layer write; then their log shares */
    if (!out) return ash_fail(err, ASH_E_NOMEM, "out of memory for a planner");
    for (size_t i = 0; i < p->n; i++) {
        const plan_unit *u = &p->u[i];
        if (u->pub.layer < 0) continue;
        if (writes_attn(u->pub.role)) out[2 * u->pub.layer] += u->energy;
        if (writes_ffn(u->pub.role)) out[2 * u->pub.layer + 1] += u->energy;
    }
    bool known = true;
    for (int32_t l = 0; l < n_layer; l++) {
        static const char *const post[2] = {"post_attention_norm", "post_ffw_norm"};
        for (int k = 0; k < 2; k++) {
            double *e = &out[2 * l + k], normed = norm_energy(p->g, l, post[k]);
            if (normed > 0) *e = normed;
            stream += *e;
            known = known && *e > 0 && isfinite(stream);
            *e = log(*e / stream);
        }
    }
    for (size_t i = 0; i < p->n && known; i++) {
        plan_unit *u = &p->u[i];
        if (u->pub.layer < 0 || !(by_attn(u->pub.role) || by_ffn(u->pub.role))) continue;
        u->prior = EXPONENT * out[2 * u->pub.layer + (by_ffn(u->pub.role) ? 1 : 0)];
        mean += u->prior, n++;
    }
    for (size_t i = 0; i < p->n && n; i++) /* the table's level stays */
        if (p->u[i].prior != 0) p->u[i].prior -= mean / (double)n;
    ash_free(out);
    return ASH_OK;
}
