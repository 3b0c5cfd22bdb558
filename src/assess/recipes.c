/* recipes.c - exact bytes of every stock recipe, the memory each takes, and which of them fit a machine. */
#include "assess/assess_int.h"

#include "ashlar/bake.h"

#include <stdlib.h>

static uint64_t up(uint64_t n, uint64_t al) { return (n + al - 1) / al * al; }

typedef struct {
    uint64_t rest;         /* file bytes that no recipe changes: header, vectors */
    uint64_t resident;     /* of the file as it is, without the weights every token reads */
} fixed;

static uint64_t bytes_as(const ash_gguf_tensor *t, int type) {
    return type == ASH_TYPE_KEEP ? t->n_bytes : ash_dtype_row_bytes((ash_dtype)type, t->ne[0]) * t->ne[1] * t->ne[2] * t->ne[3];
}

static ash_status one(ash_assess *a, size_t preset, const fixed *fx, ash_assess_recipe *r, ash_error *err) {
    ash_recipe *recipe = NULL;
    const uint64_t al = ash_gguf_alignment(a->g);
    uint64_t live = 0, live_w = 0, block = 0, block_w = 0, file = fx->rest;
    *r = (ash_assess_recipe){.name = ash_preset_name(preset), .general = ash_preset_general(preset)};
    ash_status st = ash_preset_recipe(&recipe, preset, a->g, 0, a->o.importance, err);
    if (st == ASH_E_USAGE) return ASH_OK; /* a row that fits nothing: not possible */
    if (st != ASH_OK) return st;
    r->possible = true;
    for (size_t i = 0; i < ash_gguf_n_tensors(a->g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(a->g, i);
        const int64_t rule = ash_plan_is_matrix(t) ? ash_recipe_find(recipe, t->name) : -1;
        const ash_recipe_rule ru = rule >= 0 ? ash_recipe_rule_at(recipe, (size_t)rule) : (ash_recipe_rule){.type = ASH_TYPE_KEEP, .reason = ""};
        const uint64_t b = bytes_as(t, ru.type), w = ash_assess_weights(t);
        if (*ru.reason) r->n_stand_in++;
        r->tensor_bytes += b;
        if (ash_plan_is_matrix(t)) file += up(b, al);
        if (ash_plan_is_matrix(t) && ash_assess_layer_of(t->name) >= 0) block += b, block_w += w;
        if (!ash_assess_is_lookup(a, t) && !ash_assess_is_dead(a, t)) live += b, live_w += w;
    }
    r->file_bytes = file;
    r->bpw = 8.0 * (double)file / (double)a->f.n_weights;
    r->bpw_blocks = block_w ? 8.0 * (double)block / (double)block_w : 0;
    r->bpw_live = live_w ? 8.0 * (double)live / (double)live_w : 0;
    if (a->model) r->resident = fx->resident + live;
    ash_recipe_free(recipe);
    return ASH_OK;
}

/* What a run holds beside the model: the program, its libraries, metadata and vocabulary. */
static uint64_t around(const ash_assess *a) { return (16u << 20) + (uint64_t)a->f.n_vocab * 96; }

static uint64_t budget(const ash_assess *a) {
    const uint64_t keep = ASH_MAX(a->o.ram / 8, (uint64_t)512 << 20); /* the system and what else runs */
    return a->o.ram > 2 * keep ? a->o.ram - keep : a->o.ram / 2;
}

ash_status ash_assess_read_recipes(ash_assess *a, ash_error *err) {
    fixed fx = {0};
    a->n_recipes = ash_preset_count();
    a->recipes = ash_calloc(a->n_recipes, sizeof *a->recipes);
    if (!a->recipes) return ash_fail(err, ASH_E_NOMEM, "out of memory for the recipes");
    ASH_TRY(ash_bake_fixed_bytes(&fx.rest, a->g, 0, err));
    if (a->model) {
        ash_error e = {0};
        ash_status st = ash_mem_estimate(a->model, &a->o.session, UINT64_MAX, &a->mem, &e);
        if (st == ASH_E_LIMIT) a->mem = (ash_mem){0}; /* more than this machine has: unknown, not an error */
        else if (st != ASH_OK) return err ? *err = e, st : st;
        fx.resident = a->mem.resident - ASH_MIN(a->mem.live, a->mem.resident) + around(a);
    }
    for (size_t i = 0; i < a->n_recipes; i++) {
        ASH_TRY(one(a, i, &fx, &a->recipes[i], err));
        if (!a->mem.n_ctx) a->recipes[i].resident = 0;
        a->recipes[i].fits = a->recipes[i].resident && a->recipes[i].resident <= budget(a);
    }
    return ASH_OK;
}

size_t ash_assess_n_recipes(const ash_assess *a) { return a->n_recipes; }
const ash_assess_recipe *ash_assess_recipe_at(const ash_assess *a, size_t i) { return i < a->n_recipes ? &a->recipes[i] : NULL; }

bool ash_assess_mem(const ash_assess *a, ash_mem *mem) {
    if (!a->mem.n_ctx) return false;
    *mem = a->mem;
    return true;
}

/* ---- advice ---- */
static bool smaller(const ash_assess_recipe *a, const ash_assess_recipe *b) { return (double)a->file_bytes <= 0.92 * (double)b->file_bytes; }

/* The largest general recipe that is possible, not wider than the source, within `max` bytes resident, and clearly smaller than `below`. */
static size_t next(const ash_assess *a, uint64_t max, const ash_assess_recipe *below) {
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < a->n_recipes; i++) {
        const ash_assess_recipe *r = &a->recipes[i];
        if (!r->possible || !r->general || !r->resident || r->resident > max || (below && !smaller(r, below))) continue;
        if (a->f.tensor_bytes && r->tensor_bytes > a->f.tensor_bytes) continue; /* nothing is won by growing */
        if (best == SIZE_MAX || r->file_bytes > a->recipes[best].file_bytes) best = i;
    }
    return best;
}

ash_assess_advice ash_assess_advise(const ash_assess *a) {
    ash_assess_advice v = {.ram = a->o.ram, .budget = budget(a), .n_ctx = a->mem.n_ctx, .known = a->mem.n_ctx > 0};
    const ash_assess_recipe *last = NULL;
    if (!v.known) return v;
    for (size_t i; v.n_fit < ASH_ADVICE_MAX && (i = next(a, v.budget, last)) != SIZE_MAX; last = &a->recipes[i]) v.fit[v.n_fit++] = i;
    last = v.n_fit ? &a->recipes[v.fit[0]] : NULL;
    for (size_t i; v.n_ladder < 8 && last && (i = next(a, v.budget, last)) != SIZE_MAX; last = &a->recipes[i]) v.ladder[v.n_ladder++] = i;
    return v;
}
