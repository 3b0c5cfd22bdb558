/* assess_int.h - what the files of src/assess share. */
#ifndef ASH_ASSESS_INT_H
#define ASH_ASSESS_INT_H

#include "ashlar/assess.h"
#include "model/model_int.h"

struct ash_assess {
    ash_assess_opts o;
    ash_gguf *own;             /* NULL: the model's */
    ash_model *model;          /* NULL: the engine does not run it */
    const ash_gguf *g;
    ash_model_facts f;
    ash_layer_facts *layers;
    const char **dead;
    ash_assess_recipe *recipes;
    size_t n_recipes;
    ash_mem mem;
    char name[128], arch[64], why[320];
};

/* Whether t is read only by row, and whether no run reads it at all (facts.c). */
bool ash_assess_is_lookup(const ash_assess *a, const ash_gguf_tensor *t);
bool ash_assess_is_dead(const ash_assess *a, const ash_gguf_tensor *t);
/* "blk.7.x" -> 7, else -1 */
int64_t ash_assess_layer_of(const char *name);
static inline uint64_t ash_assess_weights(const ash_gguf_tensor *t) { return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]; } /* checked on open */

ash_status ash_assess_read_facts(ash_assess *a, ash_error *err);   /* facts.c */
ash_status ash_assess_read_recipes(ash_assess *a, ash_error *err); /* recipes.c */
ash_status ash_assess_predict(ash_assess *a, ash_error *err);      /* predict.c */

/* What measured KLDs were of the planner's sum without a sweep, on two models: 1.8 times in the (geometric) mean, and the factor of an 80 % interval for
 * a third model (Student's t with one degree of freedom, hence wide). docs/assess.md has the figures. */
#define ASH_ASSESS_BIAS 1.8
#define ASH_ASSESS_MISS 5.5

#endif
