/* ashlar/plan.h - recipes (which type for which tensor, and why) and the budget solver that makes them. */
#ifndef ASHLAR_PLAN_H
#define ASHLAR_PLAN_H

#include "ashlar/gguf.h"
#include "ashlar/slice.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Importance weights of a tensor's columns (mean squared input), n floats that live as long as ctx does, or NULL when there are none.
 * A zeroed struct means no importance at all. Must be callable from one thread at a time. */
typedef struct {
    const float *(*weights)(void *ctx, const char *tensor, uint64_t n_cols); /* of a stack of experts: columns x experts */
    void *ctx;
    const float *(*counts)(void *ctx, const char *tensor, uint64_t n_mat);   /* rows that each expert saw; may be NULL */
    /* What an error costs by column and row (ash_imatrix_sensitivity); false: not known. May be NULL. */
    bool (*sensitivity)(void *ctx, const char *tensor, uint64_t n_in, uint64_t n_out, const float **in, const float **out);
} ash_importance;
/* Weights of a tensor's columns; *n_mat sets of them: one, or one for each expert. NULL: none. */
ASH_API const float *ash_plan_weights(const ash_importance *im, const ash_gguf_tensor *t, uint64_t *n_mat);
/* What an importance matrix says, experts' use included; NULL: no importance. im must outlive it. */
struct ash_imatrix;
ASH_API ash_importance ash_plan_importance(const struct ash_imatrix *im);

/* ---- recipes: docs/formats/recipe.md ---- */
#define ASH_TYPE_KEEP (-1) /* the source's own type, copied byte for byte */

typedef struct ash_recipe ash_recipe;

typedef struct {
    const char *pattern; /* tensor name; `*` and `?` are wildcards */
    int type;            /* ash_dtype, or ASH_TYPE_KEEP */
    const char *reason;  /* "" when none */
} ash_recipe_rule;

/* What a machine-made recipe knows of its making; zero or "" where unknown. Strings are borrowed. */
typedef struct {
    const char *created_by;   /* "ashlar 0.1.0" */
    const char *model_name;
    const char *model_sha256; /* 64 hex digits: quantize refuses another file */
    uint64_t budget_bytes;    /* whole file */
    uint32_t widen;           /* rows to multiples of this; 0: as they are */
    double predicted_kld;     /* < 0: unknown */
    uint64_t predicted_bytes;
} ash_recipe_info;

ASH_API ash_status ash_recipe_new(ash_recipe **r, ash_error *err);
ASH_API void ash_recipe_free(ash_recipe *r);
ASH_API ash_status ash_recipe_set_info(ash_recipe *r, const ash_recipe_info *info, ash_error *err); /* copies */
ASH_API ash_recipe_info ash_recipe_get_info(const ash_recipe *r);
ASH_API ash_status ash_recipe_add(ash_recipe *r, const char *pattern, int type, const char *reason, ash_error *err);
ASH_API size_t ash_recipe_n_rules(const ash_recipe *r);
ASH_API ash_recipe_rule ash_recipe_rule_at(const ash_recipe *r, size_t i);
/* Index of the first rule whose pattern matches, or -1. */
ASH_API int64_t ash_recipe_find(const ash_recipe *r, const char *tensor);
/* JSON when the first character is `{`, else lines `PATTERN = TYPE  # reason`. At most 16 MiB and 65,536 rules; unknown keys
 * and types are errors that name the line. `name` is used in messages. */
ASH_API ash_status ash_recipe_parse(ash_recipe **r, const char *text, size_t n, const char *name, ash_error *err);
ASH_API ash_status ash_recipe_load(ash_recipe **r, const char *path, ash_error *err);
ASH_API ash_status ash_recipe_save(const ash_recipe *r, const char *path, ash_error *err); /* JSON, written beside and renamed */
/* The JSON text, NUL-terminated; free with ash_recipe_text_free. Same recipe, same bytes. */
ASH_API ash_status ash_recipe_json(const ash_recipe *r, char **out, size_t *n, ash_error *err);
ASH_API void ash_recipe_text_free(char *s);
/* `*` any run, `?` one byte, everything else itself. */
ASH_API bool ash_glob(const char *pattern, const char *s);

/* ---- stock presets: the mixes that llama-quantize knows by name (docs/formats/presets.md) ---- */
ASH_API size_t ash_preset_count(void);
ASH_API const char *ash_preset_name(size_t preset); /* "Q4_K_M" */
ASH_API bool ash_preset_find(const char *name, size_t *preset); /* case-insensitive; Q3_K, Q4_K, Q5_K mean their _M */
ASH_API uint32_t ash_preset_file_type(size_t preset); /* general.file_type */
/* False for one-bit and ternary presets and those for special training (IQ1, TQ, Q1_0, Q2_0, MXFP4_MOE). */
ASH_API bool ash_preset_general(size_t preset);
/* The type of every matrix of g, one rule per matrix; where a stand-in is used for rows that do not fit, the reason says so. `importance`:
 * there will be an importance matrix, which changes some types. `widen`: rows to multiples of this, 0: as they are. */
ASH_API ash_status ash_preset_recipe(ash_recipe **r, size_t preset, const ash_gguf *g, uint32_t widen, bool importance, ash_error *err);

/* ---- the solver: choose one option per unit, least total damage within a budget of bytes ---- */
typedef struct { uint64_t bytes; double damage; } ash_option; /* damage >= 0, finite */
typedef struct { const ash_option *opts; int n; } ash_unit;   /* 1 <= n <= 255 */
typedef struct {
    uint64_t bytes;
    double damage;
    double bound;   /* no choice within the budget has less damage than this (linear relaxation) */
    bool exact;     /* proved optimal: dynamic programming on the sizes' common divisor */
} ash_solution;
/* choice[u] is the option taken. ASH_E_LIMIT when even the smallest options do not fit; sol->bytes then is the least possible.
 * Memory: about n_units * budget/divisor bytes, at most 256 MiB; beyond that near-exact. Deterministic. */
ASH_API ash_status ash_solve(const ash_unit *units, size_t n_units, uint64_t budget, int *choice, ash_solution *sol, ash_error *err);

/* The classical baseline: least damage + lambda * bytes per unit, lambda bisected until the bytes fit; only choices on the lower convex hulls are reached.
 * `fill`: spend what that leaves over by the promotions that save most per byte. bound is the dual one; exact stays false. */
ASH_API ash_status ash_solve_lagrange(const ash_unit *units, size_t n_units, uint64_t budget, bool fill, int *choice, ash_solution *sol, ash_error *err);

/* ---- the planner: what each type would cost each tensor, in bytes and in predicted damage ----
 *
 * A unit is one matrix. damage(u, t) = k * (e_u(t) / e_0)^s in nats of KL divergence, where e_u(t) is the importance-weighted
 * relative squared error of really encoding (a sample of) u in t, (e_0, k) what a sweep measured for u, and s its log-log slope
 * (0.8 to 1.3 when two types were measured, 1 otherwise). Units without a measurement take c * e_u(t) with c from the measured units of
 * the same role, or from a table of typical sensitivities (docs/plan.md). Damages of units add up. */
typedef struct ash_planner ash_planner;

typedef struct {
    const ash_dtype *types;    /* allowed; NULL: the standard types there is an encoder for */
    size_t n_types;
    uint32_t widen;            /* rows to multiples of this; 0: as they are */
    ash_importance importance;
    uint64_t fixed_bytes;      /* of the file that no choice changes: ash_bake_fixed_bytes */
    bool lookup_free;          /* RAM budgets: tables that are only looked up in cost nothing */
    uint64_t sample;           /* weights of each tensor encoded for e; 0: 131,072 (four times as many of a table) */
    int n_threads;             /* 0: all usable processors */
    ash_progress progress;
} ash_planner_opts;
ASH_API ash_planner_opts ash_planner_defaults(void);

typedef struct {
    ash_dtype type;
    uint64_t bytes;            /* in the file, alignment included */
    double rel_err;            /* e_u(t); 0 for the source's own type */
    double damage;             /* predicted, nats */
} ash_plan_option;

typedef struct {
    const char *tensor;        /* borrowed from the source */
    int32_t layer;             /* -1: not in a block */
    int role;                  /* ASH_ROLE_* of ashlar/eval.h, -1: unknown */
    uint64_t n_weights;
    bool lookup_only;          /* an input table of a model with its own head */
    bool measured;
    double k, e0, slope;       /* damage(e) = k * (e / e0)^slope */
    double half;               /* 95 % half-width of k, 0 when not measured */
    const ash_plan_option *opts;
    int n_opts;
} ash_plan_unit;

/* Encodes samples of every matrix in every allowed type (seconds to a minute). g must outlive p. */
ASH_API ash_status ash_planner_new(ash_planner **p, const ash_gguf *g, const ash_planner_opts *o, ash_error *err);
ASH_API void ash_planner_free(ash_planner *p);
ASH_API size_t ash_planner_n_units(const ash_planner *p);
ASH_API ash_plan_unit ash_planner_unit(const ash_planner *p, size_t u);
ASH_API uint32_t ash_planner_widen(const ash_planner *p);
/* One result of a sweep: `tensor` alone in a type with error rel_err gave kld +- half. Unknown tensors are ignored. */
ASH_API ash_status ash_planner_measured(ash_planner *p, const char *tensor, double rel_err, double kld, double half, ash_error *err);
/* The rows of `ashlar sweep --json` (docs/formats/sweep.md) that name one tensor. At most 64 MiB. */
typedef struct { char tensor[128]; double rel_err, kld, half; } ash_plan_sweep_row;
typedef struct { ash_plan_sweep_row *rows; size_t n; double noise_floor; } ash_plan_sweep;
ASH_API ash_status ash_plan_sweep_parse(ash_plan_sweep *s, const char *text, size_t n, const char *name, ash_error *err);
ASH_API ash_status ash_plan_sweep_load(ash_plan_sweep *s, const char *path, ash_error *err);
ASH_API void ash_plan_sweep_free(ash_plan_sweep *s);
/* Turn the measurements so far into damages. noise_floor: KLD below which a measurement says nothing. */
ASH_API void ash_planner_calibrate(ash_planner *p, double noise_floor);
/* How well the measured order of the blocks' matrices was predictable without the sweep: rank correlation with its 95 % bootstrap interval
 * over matrices; n of them were measured (below 8: no figure). */
typedef enum {
    ASH_PREDICT_WEIGHTS, /* the role's typical sensitivity times the measured encoding error (weights and importance) */
    ASH_PREDICT_HEADER,  /* the role alone: known from the file's header */
    ASH_PREDICT_GRADIENT /* a backward pass, no table; n 0 where there was none */
} ash_predictor;
typedef struct { double rho, lo, hi; size_t n; } ash_plan_rank;
ASH_API ash_status ash_planner_rank(const ash_planner *p, ash_predictor what, uint64_t seed, ash_plan_rank *r, ash_error *err);
/* A tensor that no token runs through (keys and values of a layer that reads another's): no type of it does damage. */
ASH_API void ash_planner_dead(ash_planner *p, const char *tensor);
/* Multiply the damages of layers [lo, hi] (-1 for tables) of the roles in `roles` (bits) by f: what refinement learns. */
ASH_API void ash_planner_scale(ash_planner *p, int32_t lo, int32_t hi, uint32_t roles, double f);
/* Solve for a budget (whole-file bytes; with lookup_free without the free tables). choice: option index per unit.
 * ASH_E_LIMIT: sol->bytes holds the least possible. */
ASH_API ash_status ash_planner_solve(const ash_planner *p, uint64_t budget, int *choice, ash_solution *sol, ash_error *err);
/* What a plan minimises. The two baselines know no sensitivities and take ash_solve_lagrange; docs/plan.md has the formulas. */
typedef enum {
    ASH_PLAN_DAMAGE = 0,   /* predicted nats, as ash_planner_solve */
    ASH_PLAN_LAGRANGE,     /* sum of importance-weighted squared errors: the outputs' squared error per token */
    ASH_PLAN_LAGRANGE_REL  /* sum of weights times relative error */
} ash_plan_method;
ASH_API bool ash_plan_method_parse(const char *s, ash_plan_method *m); /* "damage", "lagrange", "lagrange-rel" */
/* sol->damage and bound are in the method's own unit; ash_planner_total has nats. */
ASH_API ash_status ash_planner_solve_by(const ash_planner *p, ash_plan_method m, uint64_t budget, int *choice, ash_solution *sol, ash_error *err);
/* A random choice of about that size (at most `budget`, at least 0.995 of it where the types allow): a negative control. */
ASH_API ash_status ash_planner_random(const ash_planner *p, uint64_t budget, uint64_t seed, int *choice, ash_solution *sol, ash_error *err);
/* Bytes and predicted damage of any choice; the file's bytes, not the budget's. */
ASH_API ash_solution ash_planner_total(const ash_planner *p, const int *choice);
/* As a recipe: one rule per unit with its reason. */
ASH_API ash_status ash_planner_recipe(const ash_planner *p, const int *choice, ash_recipe **r, ash_error *err);

/* A matrix that may be quantized: at least two dims, a ".weight", no norm and no expert router. */
ASH_API bool ash_plan_is_matrix(const ash_gguf_tensor *t);

#ifdef __cplusplus
}
#endif
#endif
