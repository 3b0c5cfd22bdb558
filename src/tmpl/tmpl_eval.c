/* tmpl_eval.c - walks the tree: scopes, statements, expressions, and the public functions.
 *
 * Scope as in Jinja2: each pass of a loop body has its own, so a name set inside is gone after it; {% if %}
 * makes none; a namespace() object can be changed from anywhere. */
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
    if (c->arena.total > TMPL_MAX_MEMORY - (1 << 20)) return ash_tmpl_fail(c, ASH_E_LIMIT, "needs more than %d MiB of memory", TMPL_MAX_MEMORY >> 20);
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
static ash_status bind(tmpl_ctx *c, size_t scope, ash_str name, tv v) {
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
    return ASH_OK;
}

static tv lookup(const tmpl_ctx *c, ash_str name) {
    for (size_t i = c->n_var; i-- > 0;)
        if (str_same(c->var[i].name, name)) return c->var[i].val;
    const tmpl_func *f = ash_tmpl_function(name);
    if (f) return (tv){.kind = TV_FUNC, .u.func = f};
    return (tv){.kind = TV_UNDEF, .u.s = name};
}

/* ---- expressions ---- */
static ash_status eval(tmpl_ctx *c, const tmpl_node *n, tv *out);

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

static ash_status call(tmpl_ctx *c, const tmpl_node *n, tv *out) {
    tmpl_args a;
    tv f;
    if (n->a->kind == N_ATTR) { /* method of a value */
        tv self;
        ash_str name = n->a->s;
        ASH_TRY(eval(c, n->a->a, &self));
        if (self.kind != TV_NS && self.kind != TV_LOOP && ash_tmpl_has_method(&self, name)) {
            ASH_TRY(arguments(c, n->args, &a));
            c->line = n->line;
            return ash_tmpl_method(c, name, &self, &a, out);
        }
        ASH_TRY(ash_tv_attr(c, &self, name, &f));
        if (f.kind == TV_UNDEF)
            return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "the method .%.*s() of %s is not supported", (int)ASH_MIN(name.n, (size_t)40), name.p,
                                 ash_tv_kind_name(&self));
    } else
        ASH_TRY(eval(c, n->a, &f));
    c->line = n->line;
    if (f.kind == TV_MACRO)
        return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "calling the macro %.*s is not supported", (int)ASH_MIN(f.u.macro->s.n, (size_t)60), f.u.macro->s.p);
    if (f.kind == TV_UNDEF)
        return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "the function %.*s() is not supported", (int)ASH_MIN(f.u.s.n, (size_t)60), f.u.s.p);
    if (f.kind != TV_FUNC) return ash_tmpl_fail(c, ASH_E_FORMAT, "%s cannot be called", ash_tv_kind_name(&f));
    ASH_TRY(arguments(c, n->args, &a));
    c->line = n->line;
    return ash_tmpl_call(c, f.u.func, "function", NULL, &a, out);
}

static ash_status list_of(tmpl_ctx *c, const tmpl_node *n, tv *out) {
    size_t k = 0;
    for (const tmpl_node *i = n->args; i; i = i->next) k++;
    tv_list *l = ash_tmpl_alloc(c, sizeof *l);
    tv *v = ash_tmpl_alloc(c, k * sizeof *v);
    if (!l || !v) return ash_tmpl_nomem(c);
    *l = (tv_list){v, 0};
    for (const tmpl_node *i = n->args; i; i = i->next) ASH_TRY(eval(c, i, &v[l->n++]));
    *out = (tv){.kind = TV_LIST, .u.l = l};
    return ASH_OK;
}

static ash_status dict_of(tmpl_ctx *c, const tmpl_node *n, tv *out) {
    tv_dict *d = ash_tmpl_alloc(c, sizeof *d);
    if (!d) return ash_tmpl_nomem(c);
    *d = (tv_dict){0};
    for (const tmpl_node *i = n->args; i; i = i->next->next) {
        tv k, v;
        ASH_TRY(eval(c, i, &k));
        ASH_TRY(eval(c, i->next, &v));
        c->line = n->line;
        if (k.kind != TV_STR) return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "%s as a dictionary's key is not supported", ash_tv_kind_name(&k));
        ASH_TRY(ash_tv_dict_set(c, d, k.u.s, v));
    }
    *out = (tv){.kind = TV_DICT, .u.d = d};
    return ASH_OK;
}

static ash_status unary(tmpl_ctx *c, const tmpl_node *n, tv *out) {
    tv a;
    ASH_TRY(eval(c, n->a, &a));
    c->line = n->line;
    if (n->op == OP_NOT) return *out = tv_bool(!ash_tv_true(&a)), ASH_OK;
    tv zero = tv_int(0);
    if (a.kind != TV_INT && a.kind != TV_BOOL && a.kind != TV_FLOAT) return ash_tmpl_fail(c, ASH_E_FORMAT, "a sign before %s", ash_tv_kind_name(&a));
    return ash_tv_binary(c, n->op == OP_NEG ? OP_SUB : OP_ADD, &zero, &a, out);
}

static ash_status eval(tmpl_ctx *c, const tmpl_node *n, tv *out) {
    tv a, b, k;
    tmpl_args args;
    c->line = n->line;
    ASH_TRY(ash_tmpl_step(c));
    *out = (tv){.kind = TV_NONE};
    switch ((tmpl_kind)n->kind) {
    case N_CONST: *out = n->val; return ASH_OK;
    case N_NAME: *out = lookup(c, n->s); return ASH_OK;
    case N_LIST: return list_of(c, n, out);
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
    case N_FILTER:
        ASH_TRY(eval(c, n->a, &a));
        ASH_TRY(arguments(c, n->args, &args));
        c->line = n->line;
        return ash_tmpl_filter(c, n->s, &a, &args, out);
    case N_TEST: {
        bool t = false;
        ASH_TRY(eval(c, n->a, &a));
        ASH_TRY(arguments(c, n->args, &args));
        c->line = n->line;
        ASH_TRY(ash_tmpl_test(c, n->s, &a, &args, &t));
        *out = tv_bool(t != (n->op == OP_NOT));
        return ASH_OK;
    }
    case N_UNARY: return unary(c, n, out);
    case N_BINARY:
        ASH_TRY(eval(c, n->a, &a));
        ASH_TRY(eval(c, n->b, &b));
        c->line = n->line;
        return ash_tv_binary(c, (tmpl_op)n->op, &a, &b, out);
    case N_AND: case N_OR:
        ASH_TRY(eval(c, n->a, out));
        return ash_tv_true(out) == (n->kind == N_AND) ? eval(c, n->b, out) : ASH_OK;
    case N_COND:
        ASH_TRY(eval(c, n->a, &k));
        if (ash_tv_true(&k)) return eval(c, n->b, out);
        if (n->c) return eval(c, n->c, out);
        *out = (tv){.kind = TV_UNDEF, .u.s = {"the else of an inline if", 24}};
        return ASH_OK;
    default: return ash_tmpl_fail(c, ASH_E_INTERNAL, "not an expression");
    }
}

/* ---- statements ---- */
static ash_status run(tmpl_ctx *c, const tmpl_node *n, size_t scope);

static ash_status unpack(tmpl_ctx *c, const tmpl_node *targets, size_t scope, const tv *v) {
    if (!targets->next) return bind(c, scope, targets->s, *v);
    size_t k = 0, i = 0;
    for (const tmpl_node *t = targets; t; t = t->next) k++;
    tv_list l;
    ASH_TRY(ash_tv_items(c, v, &l));
    if (l.n != k) return ash_tmpl_fail(c, ASH_E_FORMAT, "a loop over %zu names got %zu values", k, l.n);
    for (const tmpl_node *t = targets; t; t = t->next) ASH_TRY(bind(c, scope, t->s, l.v[i++]));
    return ASH_OK;
}

static ash_status loop(tmpl_ctx *c, const tmpl_node *n, size_t outer) {
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
        all = (tv_list){keep, m};
    }
    if (all.n == 0) return n->c ? run(c, n->c, outer) : ASH_OK;
    tmpl_loop *l = ash_tmpl_alloc(c, sizeof *l);
    tv_list *items = ash_tmpl_alloc(c, sizeof *items);
    if (!l || !items) return ash_tmpl_nomem(c);
    *items = all;
    *l = (tmpl_loop){0, (int64_t)all.n, items};
    for (size_t i = 0; i < all.n; i++) {
        l->i = (int64_t)i;
        c->n_var = scope;
        ASH_TRY(ash_tmpl_step(c)); /* a body may be empty */
        ASH_TRY(bind(c, scope, loop_name, (tv){.kind = TV_LOOP, .u.loop = l}));
        ASH_TRY(unpack(c, n->args, scope, &all.v[i]));
        ASH_TRY(run(c, n->b, scope));
        int flow = c->flow;
        c->flow = 0;
        if (flow == N_BREAK) break;
    }
    c->n_var = scope;
    return ASH_OK;
}

static ash_status set(tmpl_ctx *c, const tmpl_node *n, size_t scope) {
    tv v;
    ASH_TRY(eval(c, n->b, &v));
    c->line = n->line;
    if (n->a->kind == N_NAME) return bind(c, scope, n->a->s, v);
    tv ns;
    ASH_TRY(eval(c, n->a->a, &ns));
    if (ns.kind != TV_NS) return ash_tmpl_fail(c, ASH_E_FORMAT, "only a namespace's attributes can be set, not those of %s", ash_tv_kind_name(&ns));
    return ash_tv_dict_set(c, ns.u.d, n->a->s, v);
}

static ash_status run(tmpl_ctx *c, const tmpl_node *n, size_t scope) {
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
            ASH_TRY(run(c, ash_tv_true(&v) ? n->b : n->c, scope));
            break;
        case N_FOR: ASH_TRY(loop(c, n, scope)); break;
        case N_SET: ASH_TRY(set(c, n, scope)); break;
        case N_MACRO: ASH_TRY(bind(c, scope, n->s, (tv){.kind = TV_MACRO, .u.macro = n})); break;
        case N_BREAK: case N_CONTINUE: c->flow = n->kind; break;
        default: return ash_tmpl_fail(c, ASH_E_INTERNAL, "not a statement");
        }
        if (c->out.oom) return ash_fail(c->err, ASH_E_NOMEM, "out of memory for a chat template");
        if (c->out.n > TMPL_MAX_OUTPUT) return ash_tmpl_fail(c, ASH_E_LIMIT, "the text grows over %d MiB", TMPL_MAX_OUTPUT >> 20);
    }
    return ASH_OK;
}

/* ---- public ---- */
ash_status ash_tmpl_parse(ash_tmpl **out, const char *src, size_t n, ash_error *err) {
    *out = NULL;
    tmpl_token *tok;
    size_t n_tok;
    ash_tmpl *t = ash_calloc(1, sizeof *t);
    if (!t) return ash_fail(err, ASH_E_NOMEM, "out of memory for a template");
    ash_status st = ash_tmpl_lex(&t->arena, src, n, &tok, &n_tok, err);
    if (st == ASH_OK) st = ash_tmpl_tree(&t->arena, tok, n_tok, &t->body, err);
    if (st != ASH_OK) {
        ash_tmpl_free(t);
        return st;
    }
    *out = t;
    return ASH_OK;
}

void ash_tmpl_free(ash_tmpl *t) {
    if (!t) return;
    ash_arena_free(&t->arena);
    ash_free(t);
}

static ash_str lit(const char *s) { return (ash_str){s, strlen(s)}; }

/* The variables Hugging Face's apply_chat_template gives to a template. */
static ash_status globals(tmpl_ctx *c, const ash_chat_msg *msgs, size_t n, bool gen, const char *bos, const char *eos) {
    tv_list *l = ash_tmpl_alloc(c, sizeof *l);
    tv *v = ash_tmpl_alloc(c, n * sizeof *v);
    if (!l || !v) return ash_tmpl_nomem(c);
    *l = (tv_list){v, n};
    for (size_t i = 0; i < n; i++) {
        tv_dict *d = ash_tmpl_alloc(c, sizeof *d);
        if (!d) return ash_tmpl_nomem(c);
        *d = (tv_dict){0};
        const char *role = msgs[i].role ? msgs[i].role : "", *text = msgs[i].content ? msgs[i].content : "";
        ASH_TRY(ash_tv_dict_set(c, d, lit("role"), tv_str(role, strlen(role))));
        ASH_TRY(ash_tv_dict_set(c, d, lit("content"), tv_str(text, strlen(text))));
        v[i] = (tv){.kind = TV_DICT, .u.d = d};
    }
    const tv none = {.kind = TV_NONE};
    ASH_TRY(bind(c, 0, lit("messages"), (tv){.kind = TV_LIST, .u.l = l}));
    ASH_TRY(bind(c, 0, lit("add_generation_prompt"), tv_bool(gen)));
    ASH_TRY(bind(c, 0, lit("bos_token"), tv_str(bos, strlen(bos))));
    ASH_TRY(bind(c, 0, lit("eos_token"), tv_str(eos, strlen(eos))));
    ASH_TRY(bind(c, 0, lit("tools"), none));
    return bind(c, 0, lit("documents"), none);
}

ash_status ash_tmpl_render(const ash_tmpl *t, const ash_chat_msg *msgs, size_t n_msgs, bool add_generation_prompt, const char *bos,
                           const char *eos, char **out, size_t *n_out, ash_error *err) {
    *out = NULL;
    *n_out = 0;
    tmpl_ctx c = {.line = 1, .err = err};
    ash_status st = globals(&c, msgs, n_msgs, add_generation_prompt, bos ? bos : "", eos ? eos : "");
    if (st == ASH_OK) st = run(&c, t->body, 0);
    if (st == ASH_OK && c.flow) st = ash_tmpl_fail(&c, ASH_E_FORMAT, "break or continue outside of a loop");
    if (st == ASH_OK) {
        ash_buf_adds(&c.out, "");
        if (!ash_buf_ok(&c.out)) st = ash_tmpl_nomem(&c);
    }
    if (st == ASH_OK) {
        *out = c.out.p;
        *n_out = c.out.n;
        c.out.p = NULL;
    }
    ash_buf_free(&c.out);
    ash_arena_free(&c.arena);
    return st;
}
