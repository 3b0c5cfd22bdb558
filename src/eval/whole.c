/* whole.c - layers by the engine's own function, with some matrices replaced. Experts and per-layer embeddings are read through
 * the model's structures, so a variant of those gets shallow copies of them that point at its own rows. */
#include "eval/whole.h"

#include "eval/vec.h"

_Static_assert(ASH_ROLE_N_LAYER == (int)ASH_W_COUNT, "roles are the model's");

enum { OTHERS = ASH_ROLES_LAYER & ~((1u << ASH_W_COUNT) - 1) }; /* layer roles that are not given as panels */

static size_t up16(size_t n) { return (n + 15) / 16 * 16; }

static bool bank(const ash_bank *b, int n, ash_part *p) {
    *p = (ash_part){&b->w, b->stride, n, b->name};
    return b->w.data != NULL;
}

static bool mat(const ash_mat *w, const char *name, ash_part *p) {
    *p = (ash_part){w, 0, 1, name};
    return w->data != NULL;
}

bool ash_part_of(const ash_model *m, int layer, int role, ash_part *p) {
    const ash_layer *l = &m->layers[ASH_MAX(layer, 0)];
    *p = (ash_part){0};
    switch (role) {
    case ASH_ROLE_EMBD: return mat(&m->embd, m->embd_name, p);
    case ASH_ROLE_OUTPUT: return !m->tied && mat(&m->head, m->head_name, p);
    case ASH_ROLE_EXP_GATE: return l->moe && bank(&l->moe->gate, m->hp.n_expert, p);
    case ASH_ROLE_EXP_UP: return l->moe && bank(&l->moe->up, m->hp.n_expert, p);
    case ASH_ROLE_EXP_DOWN: return l->moe && bank(&l->moe->down, m->hp.n_expert, p);
    case ASH_ROLE_PLE_GATE: return mat(&l->ple_gate, l->ple_gate_name, p);
    case ASH_ROLE_PLE_OUT: return mat(&l->ple_proj, l->ple_proj_name, p);
    case ASH_ROLE_PLE_TABLE: return mat(&m->ple_embd, "per_layer_token_embd.weight", p);
    case ASH_ROLE_PLE_IN: return mat(&m->ple_proj, m->ple_proj_name, p);
    default:
        if ((role == ASH_ROLE_K || role == ASH_ROLE_V) && l->kv_layer != ASH_MAX(layer, 0)) return false; /* never read */
        return role >= 0 && role < ASH_ROLE_N_LAYER && mat(&l->w[role], l->name[role], p);
    }
}

size_t ash_whole_state(const ash_model *m, int T) { return ash_layer_state_floats(m, T); }

size_t ash_whole_diff(const ash_model *m, int T, bool with_ple) {
    size_t ple, lent, n = ash_layer_state_floats(m, T);
    ash_layer_state_parts(m, T, &ple, &lent);
    return with_ple ? n : ple + (n - lent);
}

/* The variant's model, where it needs one of its own. */
typedef struct {
    ash_model m;
    ash_moe moe;
} variant;

static size_t variant_floats(const ash_model *m) {
    return m->hp.n_expert || m->hp.n_ple ? up16((sizeof(variant) + (size_t)m->hp.n_layer * sizeof(ash_layer)) / sizeof(float) + 1) : 0;
}

/* scratch: the state, a difference, the variant's model, the layer's own */
size_t ash_whole_scratch_floats(const ash_model *m, int T) {
    return 2 * up16(ash_whole_state(m, T)) + variant_floats(m) + up16(ash_layer_scratch_floats(m, T));
}

void ash_whole_ref(const ash_whole *L, const float *in, float *out, float *scratch) {
    const size_t n = ash_whole_state(L->m, L->T);
    memcpy(out, in, n * sizeof *out);
    ash_layer_apply(L->m, L->k, L->layer, L->packed, out, L->T, scratch + 2 * up16(n) + variant_floats(L->m), NULL, NULL);
}

static void set_bank(ash_bank *b, const ash_mat *rows) {
    b->w = *rows;
    b->stride = (size_t)rows->n_rows * rows->row_bytes;
}

/* A model in mem that differs from L's in the given roles. */
static const ash_model *changed_model(const ash_whole *L, const ash_change *c, uint32_t roles, float *mem) {
    if (!(roles & (OTHERS | 1u << ASH_ROLE_PLE_IN))) return L->m;
    variant *v = (variant *)(void *)mem;
    memcpy(&v->m, L->m, sizeof v->m); /* only read from here on; its reference count is nobody's */
    if (roles & 1u << ASH_ROLE_PLE_IN) v->m.ple_proj = c->rows[ASH_ROLE_PLE_IN];
    if (!(roles & OTHERS)) return &v->m;
    v->m.layers = (ash_layer *)(void *)(v + 1);
    memcpy(v->m.layers, L->m->layers, (size_t)L->m->hp.n_layer * sizeof *v->m.layers);
    ash_layer *l = &v->m.layers[L->layer];
    if (l->moe) {
        v->moe = *l->moe;
        l->moe = &v->moe;
        if (roles & 1u << ASH_ROLE_EXP_GATE) set_bank(&v->moe.gate, &c->rows[ASH_ROLE_EXP_GATE]);
        if (roles & 1u << ASH_ROLE_EXP_UP) set_bank(&v->moe.up, &c->rows[ASH_ROLE_EXP_UP]);
        if (roles & 1u << ASH_ROLE_EXP_DOWN) set_bank(&v->moe.down, &c->rows[ASH_ROLE_EXP_DOWN]);
    }
    if (roles & 1u << ASH_ROLE_PLE_GATE && l->ple_gate.data) l->ple_gate = c->rows[ASH_ROLE_PLE_GATE];
    if (roles & 1u << ASH_ROLE_PLE_OUT && l->ple_proj.data) l->ple_proj = c->rows[ASH_ROLE_PLE_OUT];
    return &v->m;
}

void ash_whole_run(const ash_whole *L, const float *in, const float *out, const ash_change *c, uint32_t roles, bool zero, bool with_ple,
                   uint16_t *keep, float *scratch) {
    size_t ple, lent, n = ash_whole_state(L->m, L->T);
    ash_layer_state_parts(L->m, L->T, &ple, &lent);
    float *v = scratch, *d = v + up16(n), *mem = d + up16(n), *own = mem + variant_floats(L->m);
    const float *packed[ASH_W_COUNT];
    const struct { size_t at, n; } part[2] = {{0, with_ple ? n : ple}, {lent, with_ple ? 0 : n - lent}};
    memcpy(v, in, n * sizeof *v);
    uint16_t *p = keep;
    for (int i = 0; !zero && i < 2; p += part[i++].n) {
        ash_vec_from_bf16(d, p, (int64_t)part[i].n);
        ash_vec_add(v + part[i].at, v + part[i].at, d, (int64_t)part[i].n);
    }
    for (int r = 0; r < ASH_W_COUNT; r++) packed[r] = roles >> r & 1 && L->packed[r] ? c->panels[r] : L->packed[r];
    ash_layer_apply(changed_model(L, c, roles, mem), L->k, L->layer, packed, v, L->T, own, NULL, NULL);
    p = keep;
    for (int i = 0; i < 2; p += part[i++].n) {
        ash_vec_sub(d, v + part[i].at, out + part[i].at, (int64_t)part[i].n);
        ash_vec_to_bf16(p, d, (int64_t)part[i].n);
    }
}
