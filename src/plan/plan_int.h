/* plan_int.h - what planner.c (units, choices) and damage.c (errors, calibration) share. */
#ifndef ASH_PLAN_INT_H
#define ASH_PLAN_INT_H

#include "ashlar/eval.h"
#include "ashlar/plan.h"
#include "base/base.h"

enum { PLAN_MAX_TYPES = ASH_DTYPE_MAX, PLAN_MAX_MEASURED = 8, PLAN_N_ROLES = ASH_ROLE_COUNT };

typedef struct { double err, kld, half; } plan_measured;

typedef struct {
    ash_plan_unit pub;
    ash_plan_option *opts;      /* pub.opts */
    size_t tensor;              /* index in the gguf */
    plan_measured m[PLAN_MAX_MEASURED];
    int n_m;
    double scale;               /* what refinement learned */
    double energy, raw;         /* E|W x|^2 of one matrix (with importance); mean squared weight */
    double power;               /* what rel_err is a share of, all matrices of the tensor: the baseline's weight */
    double fisher;              /* log of nats per relative error by a backward pass; -INFINITY: none */
    double prior;               /* log factor on the role's typical sensitivity, prior.c */
} plan_unit;

struct ash_planner {
    const ash_gguf *g;
    ash_planner_opts o;
    ash_dtype types[PLAN_MAX_TYPES];
    size_t n_types;
    ash_widen *widen;           /* NULL: not widened */
    plan_unit *u;
    size_t n;
    ash_plan_option *store;
};

/* Whether every option is a usable number. */
ash_status ash_solve_check(const ash_unit *units, size_t n, ash_error *err);
/* Fill rel_err of every option of every unit. */
ash_status ash_plan_errors(ash_planner *p, ash_error *err);
/* Fill prior of every unit, from energy and raw. */
ash_status ash_plan_prior(ash_planner *p, ash_error *err);
/* ASH_ROLE_* of a tensor's name, -1: unknown. */
int ash_plan_role(const char *tensor);
/* Typical sensitivity of a block role (ASH_ROLE_*), nats per unit of relative error. */
double ash_plan_typical(int role);
/* Forget what ash_planner_scale did; what never runs stays so. */
void ash_planner_unscale(ash_planner *p);
/* damages from k, e0, slope and scale of one unit */
void ash_plan_apply(plan_unit *u);

#endif
