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
    const float *(*weights)(void *ctx, const char *tensor, uint64_t n_cols);
    void *ctx;
} ash_importance;

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

#ifdef __cplusplus
}
#endif
#endif
