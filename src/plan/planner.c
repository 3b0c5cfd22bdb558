/* planner.c - the model as a list of units with options, and choices over them: the best for a budget, a random one of the same
 * size, and the recipe that says so. Errors and damages come from damage.c, the optimisation from solve.c. */
#include "plan/plan_int.h"

#include "ashlar/quant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const ash_dtype standard[] = {ASH_Q2_K, ASH_Q3_K, ASH_IQ4_XS, ASH_Q4_K, ASH_Q5_K, ASH_Q6_K, ASH_Q4_0,
                                     ASH_Q4_1, ASH_IQ4_NL, ASH_Q5_0, ASH_Q5_1, ASH_Q8_0, ASH_F16};

/* Fused tensors count as the most sensitive of their parts (gate and up in one are named ffn_up by the file). */
static const struct { const char *leaf; int role; } fused[] = {{"attn_qkv", ASH_ROLE_V}, {"ffn_gate_up_exps", ASH_ROLE_EXP_UP}};

ash_planner_opts ash_planner_defaults(void) { return (ash_planner_opts){0}; }

static bool ends_with(const char *s, const char *e) {
    size_t n = strlen(s), m = strlen(e);
    return n >= m && strcmp(s + n - m, e) == 0;
}

bool ash_plan_is_matrix(const ash_gguf_tensor *t) {
    return t->n_dims >= 2 && t->ne[1] > 1 && ends_with(t->name, ".weight") && !ends_with(t->name, "_norm.weight") && !strstr(t->name, "ffn_gate_inp") &&
           strcmp(t->name, "position_embd.weight") != 0 && strcmp(t->name, "token_types.weight") != 0 && /* added to, not multiplied */
           t->type != ASH_I8 && t->type != ASH_I16 && t->type != ASH_I32 && t->type != ASH_I64 && t->type != ASH_F64;
}

/* "blk.7.attn_v.weight" -> 7, V. */
static void place_of(const char *name, int32_t *layer, int *role) {
    const char *leaf = name;
    *layer = -1;
    *role = -1;
    if (strncmp(name, "blk.", 4) == 0) {
        char *end;
        long l = strtol(name + 4, &end, 10);
        if (end == name + 4 || *end != '.' || l < 0 || l > 100000) return;
        *layer = (int32_t)l;
        leaf = end + 1;
    }
    const char *dot = strchr(leaf, '.');
    size_t n = dot ? (size_t)(dot - leaf) : strlen(leaf);
    int r = ash_role_parse(leaf, n);
    for (size_t k = 0; k < ASH_ARRAY_LEN(fused); k++)
        if (strlen(fused[k].leaf) == n && memcmp(leaf, fused[k].leaf, n) == 0) r = fused[k].role;
    const bool in_block = r >= 0 && (ASH_ROLES_LAYER & 1u << r) != 0;
    if (r >= 0 && in_block == (*layer >= 0)) *role = r;
}

int ash_plan_role(const char *tensor) {
    int32_t layer;
    int role;
    place_of(tensor, &layer, &role);
    return role;
}

ash_status ash_planner_new(ash_planner **out, const ash_gguf *g, const ash_planner_opts *o, ash_error *err) {
    *out = NULL;
    ash_status st = ASH_OK;
    ash_planner *p = ash_calloc(1, sizeof *p);
    if (!p) return ash_fail(err, ASH_E_NOMEM, "out of memory for a planner");
    p->g = g;
    p->o = *o;
    const ash_dtype *types = o->types ? o->types : standard;
    size_t n_types = o->types ? o->n_types : ASH_ARRAY_LEN(standard), n = ash_gguf_n_tensors(g);
    for (size_t i = 0; i < n_types; i++) {
        bool seen = false;
        for (size_t k = 0; k < p->n_types; k++) seen |= p->types[k] == types[i];
        if (ash_quant_can(types[i])) {
            if (!seen) p->types[p->n_types++] = types[i];
        } else if (o->types) {
            st = ash_fail(err, ASH_E_UNSUPPORTED, "no encoder for %s yet", ash_dtype_name(types[i]));
            goto done;
        }
    }
    if (o->widen) {
        ASH_TRY_GOTO(ash_widen_new(&p->widen, g, o->widen, err), done);
        if (!ash_widen_needed(p->widen)) {
            ash_widen_free(p->widen);
            p->widen = NULL;
        }
    }
    p->u = ash_calloc(n + 1, sizeof *p->u);
    p->store = ash_calloc((n + 1) * (p->n_types + 1), sizeof *p->store);
    if (!p->u || !p->store) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a planner");
        goto done;
    }
    uint64_t al = ash_gguf_alignment(g);
    bool own_head = ash_gguf_find_tensor(g, "output.weight") != NULL;
    ash_plan_option *at = p->store;
    for (size_t i = 0; i < n; i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        if (!ash_plan_is_matrix(t)) continue;
        plan_unit *u = &p->u[p->n];
        uint64_t ne[ASH_GGUF_MAX_DIMS], bytes;
        ash_widen_shape(p->widen, g, i, ne);
        u->tensor = i;
        u->scale = 1;
        u->opts = at;
        u->pub = (ash_plan_unit){.tensor = t->name, .n_weights = t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3], .opts = at, .e0 = 1, .slope = 1};
        place_of(t->name, &u->pub.layer, &u->pub.role);
        u->pub.lookup_only = (u->pub.role == ASH_ROLE_EMBD && own_head) || u->pub.role == ASH_ROLE_PLE_TABLE;
        bool reshaped = memcmp(ne, t->ne, sizeof ne) != 0;
        for (size_t k = 0; k <= p->n_types; k++) {
            bool own = k == p->n_types; /* last: the source's type, copied */
            ash_dtype ty = own ? t->type : p->types[k];
            if (own ? reshaped : (!reshaped && ty == t->type)) continue;
            if (ash_mul_ovf(ash_dtype_row_bytes(ty, ne[0]), ne[1] * ne[2] * ne[3], &bytes) || bytes == 0) continue; /* does not fit the row */
            *at++ = (ash_plan_option){.type = ty, .bytes = (bytes + al - 1) / al * al, .rel_err = own ? 0 : 1};
            u->pub.n_opts++;
        }
        if (u->pub.n_opts == 0) {
            st = ash_fail(err, ASH_E_USAGE, "tensor %s: none of the allowed types fits rows of %llu weights", t->name, (unsigned long long)ne[0]);
            goto done;
        }
        p->n++;
    }
    if (p->n == 0) {
        st = ash_fail(err, ASH_E_FORMAT, "the file holds no matrix to choose a type for");
        goto done;
    }
    ASH_TRY_GOTO(ash_plan_errors(p, err), done);
    ash_planner_calibrate(p, 0);
done:
    if (st == ASH_OK) *out = p;
    else ash_planner_free(p);
    return st;
}

void ash_planner_free(ash_planner *p) {
    if (!p) return;
    ash_widen_free(p->widen);
    ash_free(p->u);
    ash_free(p->store);
    ash_free(p);
}

size_t ash_planner_n_units(const ash_planner *p) { return p->n; }
ash_plan_unit ash_planner_unit(const ash_planner *p, size_t u) { return p->u[u].pub; }
uint32_t ash_planner_widen(const ash_planner *p) { return p->widen ? p->o.widen : 0; }

static uint64_t cost(const ash_planner *p, const plan_unit *u, int k) { return p->o.lookup_free && u->pub.lookup_only ? 0 : u->opts[k].bytes; }

bool ash_plan_method_parse(const char *s, ash_plan_method *m) {
    static const char *const names[] = {"damage", "lagrange", "lagrange-rel"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(names); i++)
        if (strcmp(s, names[i]) == 0) return *m = (ash_plan_method)i, true;
    return false;
}

/* What method m makes of option k. */
static double objective(const plan_unit *u, int k, ash_plan_method m) {
    if (m == ASH_PLAN_DAMAGE) return u->opts[k].damage;
    if (!(u->scale > 0)) return 0; /* never runs */
    return u->opts[k].rel_err * (m == ASH_PLAN_LAGRANGE ? u->power : (double)u->pub.n_weights);
}

ash_status ash_planner_solve(const ash_planner *p, uint64_t budget, int *choice, ash_solution *sol, ash_error *err) {
    return ash_planner_solve_by(p, ASH_PLAN_DAMAGE, budget, choice, sol, err);
}

ash_status ash_planner_solve_by(const ash_planner *p, ash_plan_method m, uint64_t budget, int *choice, ash_solution *sol, ash_error *err) {
    size_t n_opts = 0, at = 0;
    for (size_t i = 0; i < p->n; i++) n_opts += (size_t)p->u[i].pub.n_opts;
    ash_status st = ASH_OK;
    ash_unit *u = ash_alloc(p->n * sizeof *u);
    ash_option *o = ash_alloc(n_opts * sizeof *o);
    if (!u || !o) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory in the planner");
        goto done;
    }
    for (size_t i = 0; i < p->n; i++) {
        u[i] = (ash_unit){o + at, p->u[i].pub.n_opts};
        for (int k = 0; k < u[i].n; k++) o[at++] = (ash_option){cost(p, &p->u[i], k), objective(&p->u[i], k, m)};
    }
    const uint64_t left = budget > p->o.fixed_bytes ? budget - p->o.fixed_bytes : 0;
    st = m == ASH_PLAN_DAMAGE ? ash_solve(u, p->n, left, choice, sol, err) : ash_solve_lagrange(u, p->n, left, true, choice, sol, err);
    sol->bytes += p->o.fixed_bytes;
    if (st == ASH_E_LIMIT)
        ash_fail(err, st, "the budget of %llu bytes cannot be met: the smallest possible file has %llu bytes", (unsigned long long)budget, (unsigned long long)sol->bytes);
    if (st == ASH_OK) {
        double bound = sol->bound;
        *sol = (ash_solution){ash_planner_total(p, choice).bytes, sol->damage, bound, sol->exact};
    }
done:
    ash_free(u);
    ash_free(o);
    return st;
}

ash_solution ash_planner_total(const ash_planner *p, const int *choice) {
    ash_solution s = {.bytes = p->o.fixed_bytes};
    for (size_t i = 0; i < p->n; i++) s.bytes += p->u[i].opts[choice[i]].bytes, s.damage += p->u[i].opts[choice[i]].damage;
    return s;
}

/* Options of half to one and a half times the budget's mean bits only, and none that another beats in both respects: a random
 * mix that nobody could call a straw man. */
static bool sensible(const plan_unit *u, int k, double mean_bytes_per_weight) {
    double b = (double)u->opts[k].bytes / (double)u->pub.n_weights / mean_bytes_per_weight;
    if (b < 0.5 || b > 1.5) return false;
    for (int j = 0; j < u->pub.n_opts; j++)
        if (j != k && u->opts[j].bytes <= u->opts[k].bytes && u->opts[j].damage < u->opts[k].damage) return false;
    return true;
}

ash_status ash_planner_random(const ash_planner *p, uint64_t budget, uint64_t seed, int *choice, ash_solution *sol, ash_error *err) {
    ash_rng r;
    uint64_t weights = 0, total = p->o.fixed_bytes, floor = budget - budget / 200;
    ash_rng_seed(&r, seed);
    for (size_t i = 0; i < p->n; i++) weights += p->u[i].pub.n_weights;
    double mean = (double)(budget > p->o.fixed_bytes ? budget - p->o.fixed_bytes : 0) / (double)weights;
    for (size_t i = 0; i < p->n; i++) {
        const plan_unit *u = &p->u[i];
        int ok[PLAN_MAX_TYPES + 1], n = 0, least = 0;
        for (int k = 0; k < u->pub.n_opts; k++) {
            if (sensible(u, k, mean)) ok[n++] = k;
            if (u->opts[k].bytes < u->opts[least].bytes) least = k;
        }
        choice[i] = n ? ok[ash_rng_below(&r, (uint64_t)n)] : least;
        total += u->opts[choice[i]].bytes;
    }
    /* random single changes towards the budget; near it, only ones that do not overshoot */
    for (int step = 0; step < 400000 && (total > budget || total < floor); step++) {
        size_t i = ash_rng_below(&r, p->n);
        const plan_unit *u = &p->u[i];
        int k = (int)ash_rng_below(&r, (uint64_t)u->pub.n_opts);
        uint64_t now = u->opts[choice[i]].bytes, then = u->opts[k].bytes;
        bool last_resort = step > 200000; /* then any type will do */
        if (!last_resort && !sensible(u, k, mean)) continue;
        if (total > budget ? then >= now : then <= now || total - now + then > budget) continue;
        total = total - now + then;
        choice[i] = k;
    }
    *sol = ash_planner_total(p, choice);
    if (sol->bytes > budget)
        return ash_fail(err, ASH_E_LIMIT, "no random mix within %llu bytes was found", (unsigned long long)budget);
    return ASH_OK;
}

ash_status ash_planner_recipe(const ash_planner *p, const int *choice, ash_recipe **out, ash_error *err) {
    ash_recipe *r;
    ASH_TRY(ash_recipe_new(&r, err));
    ash_status st = ASH_OK;
    for (size_t i = 0; i < p->n && st == ASH_OK; i++) {
        const plan_unit *u = &p->u[i];
        const ash_plan_option *o = &u->opts[choice[i]], *up = NULL;
        char why[200];
        for (int k = 0; k < u->pub.n_opts; k++) /* the next better type: what a few more bytes would buy */
            if (u->opts[k].damage < o->damage && u->opts[k].bytes > o->bytes && (!up || u->opts[k].bytes < up->bytes)) up = &u->opts[k];
        if (o->rel_err == 0) snprintf(why, sizeof why, "the source's own type: nothing is lost");
        else if (up)
            snprintf(why, sizeof why, "costs %.2e nats (%s); %s would save %.1e for %.1f kB", o->damage, u->pub.measured ? "measured" : "estimated",
                     ash_dtype_name(up->type), o->damage - up->damage, (double)(up->bytes - o->bytes) / 1000);
        else snprintf(why, sizeof why, "costs %.2e nats (%s)", o->damage, u->pub.measured ? "measured" : "estimated");
        st = ash_recipe_add(r, u->pub.tensor, (int)o->type, why, err);
    }
    ash_solution s = ash_planner_total(p, choice);
    char by[64];
    snprintf(by, sizeof by, "ashlar %s", ash_version());
    ash_recipe_info info = {.created_by = by, .model_name = "", .model_sha256 = "", .widen = ash_planner_widen(p), .predicted_kld = s.damage, .predicted_bytes = s.bytes};
    if (st == ASH_OK) st = ash_recipe_set_info(r, &info, err);
    if (st == ASH_OK) *out = r;
    else ash_recipe_free(r);
    return st;
}
