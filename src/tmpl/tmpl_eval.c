/* tmpl_eval.c - walks the tree: scopes, macros, statements, expressions.
 *
 * Scope as in Jinja2: each pass of a loop body has its own, so a name set inside is gone after it; {% if %}
 * makes none; a namespace() object can be changed from anywhere. A macro sees the names of the top level as they
 * are when it is called, and its own. */
#include "tmpl/tmpl_int.h"

#include <stdio.h>

ash_status ash_tmpl_fail(tmpl_ctx *c, ash_status code, const char *fmt, ...) {
    char msg[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    return ash_fail(c->err, code, "template line %u: %s", c->line, msg);
}

ash_status ash_tmpl_nomem(tmpl_ctx *c) {
    if (c->arena.total > TMPL_MAX_MEMORY - (1 << 20))
        return ash_tmpl_fail(c, ASH_E_LIMIT, "needs more than %d MiB of memory", TMPL_MAX_MEMORY >> 20);
    return ash_fail(c->err, ASH_E_NOMEM, "out of memory for a chat template");
}

void *ash_tmpl_alloc(tmpl_ctx *c, size_t n) {
    if (n > TMPL_MAX_MEMORY || c->arena.total > TMPL_MAX_MEMORY - n) {
        c->arena.total = TMPL_MAX_MEMORY; /* remembered for ash_tmpl_nomem */
        return NULL;
    }
    return ash_arena_alloc(&c->arena, n);
}

ash_status ash_tmpl_step(tmpl_ctx *c) {
    if (++c->steps > TMPL_MAX_STEPS) return ash_tmpl_fail(c, ASH_E_LIMIT, "more than %d steps", TMPL_MAX_STEPS);
    return ASH_OK;
}

/* ---- names ---- */
ash_status ash_tmpl_bind(tmpl_ctx *c, size_t scope, ash_str name, tv v) {
    for (size_t i = c->n_var; i-- > scope;)
        if (str_same(c->var[i].name, name)) return c->var[i].val = v, ASH_OK;
    if (c->n_var == c->cap_var) {
        size_t cap = c->cap_var ? c->cap_var * 2 : 32;
        tmpl_var *p = ash_tmpl_alloc(c, cap * sizeof *p);
        if (!p) return ash_tmpl_nomem(c);
        if (c->n_var) memcpy(p, c->var, c->n_var * sizeof *p);
        c->var = p;
        c->cap_var = cap;
    }
    c->var[c->n_var++] = (tmpl_var){name, v};
    if (scope == 0) c->n_top = c->n_var; /* the top level binds with nothing of a loop above it */
    return ASH_OK;
}

static tv lookup(const tmpl_ctx *c, ash_str name) {
    for (size_t i = c->n_var; i-- > c->base;)
        if (str_same(c->var[i].name, name)) return c->var[i].val;
    for (size_t i = ASH_MIN(c->n_top, c->base); i-- > 0;)
        if (str_same(c->var[i].name, name)) return c->var[i].val;
    const tmpl_func *f = ash_tmpl_function(name);
    if (f && (c->has_now || !str_eq(name, "strftime_now")))
        return (tv){.kind = TV_FUNC, .u.func = f}; /* templates ask whether it is defined */
    return (tv){.kind = TV_UNDEF, .u.s = name};
}

/* ---- expressions ---- */
static ash_status eval(tmpl_ctx *c, const tmpl_node *n, tv *out);

static ash_status deeper(tmpl_ctx *c) {
    if (++c->depth > TMPL_MAX_CALL_DEPTH) return ash_tmpl_fail(c, ASH_E_LIMIT, "macros nested too deep");
    return ASH_OK;
}

static ash_status arguments(tmpl_ctx *c, const tmpl_node *n, tmpl_args *a) {
    a->n = 0;
    for (; n; n = n->next) {
        if (a->n == TMPL_MAX_ARGS) return ash_tmpl_fail(c, ASH_E_LIMIT, "more than %d arguments", TMPL_MAX_ARGS);
        a->kw[a->n] = n->kw;
        ASH_TRY(eval(c, n, &a->v[a->n]));
        a->n++;
    }
    return ASH_OK;
}

/* Run statements into a string of their own instead of the output. */
static ash_status capture(tmpl_ctx *c, const tmpl_node *body, size_t scope, tv *out) {
    ash_buf outer = c->out;
    c->out = (ash_buf){0};
    ash_status st = ash_tmpl_run(c, body, scope);
    ash_buf text = c->out;
    c->out = outer;
    return ash_tv_from_buf(c, &text, st, out);
}

static ash_status call_macro(tmpl_ctx *c, const tmpl_closure *m, const tmpl_args *a, tv *out) {
    const tmpl_node *n = m->node;
    const size_t base = c->base, scope = c->n_var;
    const int loops = c->loops;
    const char *name = n->s.p;
    const int name_n = (int)ASH_MIN(n->s.n, (size_t)60);
    int used = 0, k = 0;
    if (m->visible == 0) c->base = scope; /* else: defined in a loop or another macro, whose names it sees */
    c->loops = 0;
    for (const tmpl_node *p = n->args; p; p = p->next, k++) {
        tv v = tv_undef(p->s);
        bool given = false;
        for (int i = 0; i < a->n; i++)
            if (a->kw[i].n ? str_same(a->kw[i], p->s) : i == k) {
                if (given)
                    return ash_tmpl_fail(c, ASH_E_FORMAT, "macro %.*s got the argument %.*s twice", name_n, name,
                                         (int)ASH_MIN(p->s.n, (size_t)60), p->s.p);
                v = a->v[i];
                given = true;
                used++;
            }
        if (!given && p->b) ASH_TRY(eval(c, p->b, &v)); /* a default sees the parameters before it */
        size_t at = c->n_var;
        ASH_TRY(ash_tmpl_bind(c, at, p->s, v)); /* at: a new entry, even if the name exists */
    }
    if (used < a->n)
        return ash_tmpl_fail(c, ASH_E_FORMAT, "macro %.*s takes no more than %d arguments, and none that it does not name", name_n, name,
                             k);
    ASH_TRY(capture(c, n->b, scope, out));
    if (c->flow) return ash_tmpl_fail(c, ASH_E_FORMAT, "break or continue outside of a loop");
    c->n_var = scope;
    c->base = base;
    c->loops = loops;
    return ASH_OK;
}

/* loop.cycle(a, b, ...) */
static ash_status loop_method(tmpl_ctx *c, const tmpl_loop *l, ash_str name, const tmpl_args *a, tv *out) {
    if (!str_eq(name, "cycle") || a->n == 0)
        return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "loop.%.*s() is not supported", (int)ASH_MIN(name.n, (size_t)40), name.p);
    *out = a->v[l->i % a->n];
    return ASH_OK;
}

static __attribute__((noinline)) ash_status call(tmpl_ctx *c, const tmpl_node *n, tv *out) {
    tmpl_args a;
    tv f;
    if (n->a->kind == N_ATTR) { /* method of a value */
        tv self;
        ash_str name = n->a->s;
        ASH_TRY(eval(c, n->a->a, &self));
        const tmpl_func *m = ash_tmpl_method(&self, name);
        if (m || self.kind == TV_LOOP) {
            ASH_TRY(arguments(c, n->args, &a));
            c->line = n->line;
            return m ? ash_tmpl_call(c, m, "method", &self, &a, out) : loop_method(c, self.u.loop, name, &a, out);
        }
        ASH_TRY(ash_tv_attr(c, &self, name, &f));
        c->line = n->line;
        if (f.kind == TV_UNDEF)
            return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "the method .%.*s() of %s is not supported", (int)ASH_MIN(name.n, (size_t)40),
                                 name.p, ash_tv_kind_name(&self));
    } else
        ASH_TRY(eval(c, n->a, &f));
    c->line = n->line;
    if (f.kind == TV_UNDEF)
        return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "the function %.*s() is not supported", (int)ASH_MIN(f.u.s.n, (size_t)60), f.u.s.p);
    if (f.kind != TV_FUNC && f.kind != TV_MACRO) return ash_tmpl_fail(c, ASH_E_FORMAT, "%s cannot be called", ash_tv_kind_name(&f));
    ASH_TRY(arguments(c, n->args, &a));
    c->line = n->line;
    if (f.kind == TV_MACRO) return call_macro(c, f.u.macro, &a, out);
    if (ash_tmpl_function((ash_str){f.u.func->name, strlen(f.u.func->name)}) != f.u.func)
        return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "calling the method %s by another name is not supported", f.u.func->name);
    return ash_tmpl_call(c, f.u.func, "function", NULL, &a, out);
}

static __attribute__((noinline)) ash_status filter(tmpl_ctx *c, const tmpl_node *n, const tv *self, tv *out) {
    tmpl_args args;
    ASH_TRY(arguments(c, n->args, &args));
    c->line = n->line;
    return ash_tmpl_filter(c, n->s, self, &args, out);
}

static __attribute__((noinline)) ash_status test(tmpl_ctx *c, const tmpl_node *n, tv *out) {
    tmpl_args args;
    tv a;
    bool t;
    ASH_TRY(eval(c, n->a, &a));
    ASH_TRY(arguments(c, n->args, &args));
    c->line = n->line;
    ASH_TRY(ash_tmpl_test(c, n->s, &a, &args, &t));
    *out = tv_bool(t != (n->op == OP_NOT));
    return ASH_OK;
}

static ash_status list_of(tmpl_ctx *c, const tmpl_node *n, tv *out) {
    size_t k = 0;
    tv l;
    for (const tmpl_node *i = n->args; i; i = i->next) k++;
    ASH_TRY(ash_tv_list_new(c, n->kind == N_TUPLE ? TL_TUPLE : TL_LIST, k, &l));
    for (const tmpl_node *i = n->args; i; i = i->next) ASH_TRY(eval(c, i, &l.u.l->v[l.u.l->n++]));
    *out = l;
    return ASH_OK;
}

static ash_status dict_of(tmpl_ctx *c, const tmpl_node *n, tv *out) {
    tv d;
    ASH_TRY(ash_tv_dict_new(c, &d));
    for (const tmpl_node *i = n->args; i; i = i->next->next) {
        tv k, v;
        ASH_TRY(eval(c, i, &k));
        ASH_TRY(eval(c, i->next, &v));
        c->line = n->line;
        if (k.kind != TV_STR) return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "%s as a dictionary's key is not supported", ash_tv_kind_name(&k));
        ASH_TRY(ash_tv_dict_set(c, d.u.d, k.u.s, v));
    }
    *out = d;
    return ASH_OK;
}

static ash_status unary(tmpl_ctx *c, const tmpl_node *n, tv *out) {
    tv a;
    ASH_TRY(eval(c, n->a, &a));
    c->line = n->line;
    if (n->op == OP_NOT) return *out = tv_bool(!ash_tv_true(&a)), ASH_OK;
    tv zero = tv_int(0);
    if (a.kind == TV_FLOAT && n->op == OP_NEG) return *out = (tv){.kind = TV_FLOAT, .u.f = -a.u.f}, ASH_OK;
    if (a.kind == TV_UNDEF) return ash_tv_undefined(c, &a);
    if (a.kind != TV_INT && a.kind != TV_BOOL && a.kind != TV_FLOAT)
        return ash_tmpl_fail(c, ASH_E_FORMAT, "a sign before %s", ash_tv_kind_name(&a));
    return ash_tv_binary(c, n->op == OP_NEG ? OP_SUB : OP_ADD, &zero, &a, out);
}

static ash_status eval_node(tmpl_ctx *c, const tmpl_node *n, tv *out);

static ash_status eval(tmpl_ctx *c, const tmpl_node *n, tv *out) {
    c->line = n->line;
    ASH_TRY(ash_tmpl_step(c));
    ASH_TRY(deeper(c));
    ASH_TRY(eval_node(c, n, out));
    c->depth--;
    return ASH_OK;
}

static ash_status eval_node(tmpl_ctx *c, const tmpl_node *n, tv *out) {
    tv a, b;
    *out = (tv){.kind = TV_NONE};
    switch ((tmpl_kind)n->kind) {
    case N_CONST: *out = n->val; return ASH_OK;
    case N_NAME: *out = lookup(c, n->s); return ASH_OK;
    case N_LIST:
    case N_TUPLE: return list_of(c, n, out);
    case N_DICT: return dict_of(c, n, out);
    case N_ATTR:
        ASH_TRY(eval(c, n->a, &a));
        c->line = n->line;
        return ash_tv_attr(c, &a, n->s, out);
    case N_ITEM:
        ASH_TRY(eval(c, n->a, &a));
        ASH_TRY(eval(c, n->b, &b));
        c->line = n->line;
        return ash_tv_item(c, &a, &b, out);
    case N_SLICE: {
        tv part[3];
        const tmpl_node *kid[3] = {n->b, n->c, n->d};
        ASH_TRY(eval(c, n->a, &a));
        for (int i = 0; i < 3; i++)
            if (kid[i]) ASH_TRY(eval(c, kid[i], &part[i]));
        c->line = n->line;
        return ash_tv_slice(c, &a, kid[0] ? &part[0] : NULL, kid[1] ? &part[1] : NULL, kid[2] ? &part[2] : NULL, out);
    }
    case N_CALL: return call(c, n, out);
    case N_FILTER: ASH_TRY(eval(c, n->a, &a)); return filter(c, n, &a, out);
    case N_TEST: return test(c, n, out);
    case N_UNARY: return unary(c, n, out);
    case N_BINARY:
        ASH_TRY(eval(c, n->a, &a));
        ASH_TRY(eval(c, n->b, &b));
        c->line = n->line;
        return ash_tv_binary(c, (tmpl_op)n->op, &a, &b, out);
    case N_AND:
    case N_OR: ASH_TRY(eval(c, n->a, out)); return ash_tv_true(out) == (n->kind == N_AND) ? eval(c, n->b, out) : ASH_OK;
    case N_COND:
        ASH_TRY(eval(c, n->a, &a));
        if (ash_tv_true(&a)) return eval(c, n->b, out);
        if (n->c) return eval(c, n->c, out);
        *out = (tv){.kind = TV_UNDEF, .u.s = {"the else of an inline if", 24}};
        return ASH_OK;
    default: return ash_tmpl_fail(c, ASH_E_INTERNAL, "not an expression");
    }
}

/* ---- statements ---- */
static ash_status assign(tmpl_ctx *c, const tmpl_node *target, size_t scope, tv v) {
    if (target->kind == N_NAME) return ash_tmpl_bind(c, scope, target->s, v);
    tv ns;
    ASH_TRY(eval(c, target->a, &ns));
    if (ns.kind != TV_NS)
        return ash_tmpl_fail(c, ASH_E_FORMAT, "only a namespace's attributes can be set, not those of %s", ash_tv_kind_name(&ns));
    return ash_tv_dict_set(c, ns.u.d, target->s, v);
}

static ash_status unpack(tmpl_ctx *c, const tmpl_node *targets, size_t scope, const tv *v) {
    if (!targets->next) return assign(c, targets, scope, *v);
    size_t k = 0, i = 0;
    for (const tmpl_node *t = targets; t; t = t->next) k++;
    tv_list l;
    ASH_TRY(ash_tv_items(c, v, &l));
    if (l.n != k) return ash_tmpl_fail(c, ASH_E_FORMAT, "%zu names for %zu values", k, l.n);
    for (const tmpl_node *t = targets; t; t = t->next) ASH_TRY(assign(c, t, scope, l.v[i++]));
    return ASH_OK;
}

static ash_status loop(tmpl_ctx *c, const tmpl_node *n) {
    static const ash_str loop_name = {"loop", 4};
    size_t scope = c->n_var;
    tv over;
    tv_list all;
    ASH_TRY(eval(c, n->a, &over));
    c->line = n->line;
    ASH_TRY(ash_tv_items(c, &over, &all));
    if (n->d) { /* the condition sees the target, not `loop` */
        tv *keep = ash_tmpl_alloc(c, all.n * sizeof *keep);
        size_t m = 0;
        if (!keep) return ash_tmpl_nomem(c);
        for (size_t i = 0; i < all.n; i++) {
            tv t;
            ASH_TRY(unpack(c, n->args, scope, &all.v[i]));
            ASH_TRY(eval(c, n->d, &t));
            c->n_var = scope;
            if (ash_tv_true(&t)) keep[m++] = all.v[i];
        }
        all = (tv_list){keep, m, TL_LIST};
    }
    if (all.n == 0) {
        if (n->c) ASH_TRY(ash_tmpl_run(c, n->c, scope)); /* the else has a scope of its own, too */
        c->n_var = scope;
        return ASH_OK;
    }
    tmpl_loop *l = ash_tmpl_alloc(c, sizeof *l);
    tv_list *items = ash_tmpl_alloc(c, sizeof *items);
    if (!l || !items) return ash_tmpl_nomem(c);
    *items = all;
    *l = (tmpl_loop){0, (int64_t)all.n, ++c->loops, items};
    for (size_t i = 0; i < all.n; i++) {
        l->i = (int64_t)i;
        c->n_var = scope;
        ASH_TRY(ash_tmpl_step(c)); /* a body may be empty */
        ASH_TRY(ash_tmpl_bind(c, scope, loop_name, (tv){.kind = TV_LOOP, .u.loop = l}));
        ASH_TRY(unpack(c, n->args, scope, &all.v[i]));
        ASH_TRY(ash_tmpl_run(c, n->b, scope));
        int flow = c->flow;
        c->flow = 0;
        if (flow == N_BREAK) break;
    }
    c->loops--;
    c->n_var = scope;
    return ASH_OK;
}

/* A chain of filters on a captured text. */
static ash_status filtered(tmpl_ctx *c, const tmpl_node *f, tv *v) {
    if (!f) return ASH_OK;
    ASH_TRY(filtered(c, f->a, v));
    tv in = *v;
    return filter(c, f, &in, v);
}

static ash_status block(tmpl_ctx *c, const tmpl_node *n, size_t scope) {
    const size_t inner = c->n_var;
    tv v;
    if (n->kind == N_WITH) {
        for (const tmpl_node *t = n->args; t; t = t->next->next) {
            ASH_TRY(eval(c, t->next, &v));
            ASH_TRY(assign(c, t, inner, v));
        }
        ASH_TRY(ash_tmpl_run(c, n->b, inner));
        c->n_var = inner;
        return ASH_OK;
    }
    ASH_TRY(capture(c, n->b, inner, &v));
    c->n_var = inner;
    ASH_TRY(filtered(c, n->c, &v));
    c->line = n->line;
    if (n->kind == N_SET_BLOCK) return assign(c, n->args, scope, v);
    return ash_tv_print(c, &c->out, &v, false, 0);
}

static ash_status define(tmpl_ctx *c, const tmpl_node *n, size_t scope) {
    tmpl_closure *m = ash_tmpl_alloc(c, sizeof *m);
    if (!m) return ash_tmpl_nomem(c);
    *m = (tmpl_closure){n, scope};
    return ash_tmpl_bind(c, scope, n->s, (tv){.kind = TV_MACRO, .u.macro = m});
}

ash_status ash_tmpl_run(tmpl_ctx *c, const tmpl_node *n, size_t scope) {
    ASH_TRY(deeper(c));
    for (; n && !c->flow; n = n->next) {
        tv v;
        c->line = n->line;
        ASH_TRY(ash_tmpl_step(c));
        switch ((tmpl_kind)n->kind) {
        case N_TEXT: ash_buf_add(&c->out, n->s.p, n->s.n); break;
        case N_PRINT:
            ASH_TRY(eval(c, n->a, &v));
            c->line = n->line;
            ASH_TRY(ash_tv_print(c, &c->out, &v, false, 0));
            break;
        case N_IF:
            ASH_TRY(eval(c, n->a, &v));
            ASH_TRY(ash_tmpl_run(c, ash_tv_true(&v) ? n->b : n->c, scope));
            break;
        case N_FOR: ASH_TRY(loop(c, n)); break;
        case N_SET:
            ASH_TRY(eval(c, n->b, &v));
            c->line = n->line;
            ASH_TRY(unpack(c, n->args, scope, &v));
            break;
        case N_SET_BLOCK:
        case N_FILTER_BLOCK:
        case N_WITH: ASH_TRY(block(c, n, scope)); break;
        case N_MACRO: ASH_TRY(define(c, n, scope)); break;
        case N_BREAK:
        case N_CONTINUE: c->flow = n->kind; break;
        default: return ash_tmpl_fail(c, ASH_E_INTERNAL, "not a statement");
        }
        if (c->out.oom) return ash_fail(c->err, ASH_E_NOMEM, "out of memory for a chat template");
        if (c->out.n > TMPL_MAX_OUTPUT) return ash_tmpl_fail(c, ASH_E_LIMIT, "the text grows over %d MiB", TMPL_MAX_OUTPUT >> 20);
    }
    c->depth--;
    return ASH_OK;
}
