/* tmpl_parse.c - tokens to a tree, by recursive descent in Jinja2's order of precedence:
 *   x if c else y; or; and; not; comparisons, in; + -; ~; * / // %; **; unary; postfix . [] (); | filter, is test
 * Depth is limited while parsing (recursion) and for each node (long chains), so the walk is bounded. */
#include "tmpl/tmpl_int.h"

#include <stdio.h>

typedef struct {
    ash_arena *a;
    const tmpl_token *t;
    size_t n, at;
    int depth;
    ash_error *err;
    ash_status st; /* first failure; later steps do nothing */
} parser;

static tmpl_node *expr(parser *x);
static tmpl_node *or_expr(parser *x);
static tmpl_node *tuple(parser *x, bool cond);
static tmpl_node *unary(parser *x, bool filters);
static tmpl_node *statements(parser *x, const char *const *ends);

static const tmpl_token *cur(const parser *x) { return &x->t[x->at]; }

static void *fail(parser *x, ash_status st, const char *fmt, ...) ASH_PRINTF(3, 4);
static void *fail(parser *x, ash_status st, const char *fmt, ...) {
    if (x->st != ASH_OK) return NULL;
    char msg[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    x->st = ash_fail(x->err, st, "template line %u: %s", cur(x)->line, msg);
    return NULL;
}

static tmpl_node *node(parser *x, tmpl_kind kind) {
    if (x->st != ASH_OK) return NULL;
    tmpl_node *n = ash_arena_alloc(x->a, sizeof *n);
    if (!n) {
        x->st = ash_fail(x->err, ASH_E_NOMEM, "out of memory for a template");
        return NULL;
    }
    *n = (tmpl_node){.kind = (uint8_t)kind, .line = cur(x)->line, .depth = 1};
    return n;
}

/* Set a node's depth from its children; NULL when that is too much. */
static tmpl_node *deep(parser *x, tmpl_node *n) {
    if (!n || x->st != ASH_OK) return NULL;
    const tmpl_node *kids[] = {n->a, n->b, n->c, n->d, n->args};
    unsigned d = 0;
    for (size_t i = 0; i < ASH_ARRAY_LEN(kids); i++)
        for (const tmpl_node *k = kids[i]; k; k = k->next) {
            d = ASH_MAX(d, (unsigned)k->depth);
            if (i < 3 && k->kind > N_MACRO) break; /* an expression, not a list */
        }
    if (d + 1 > TMPL_MAX_NODE_DEPTH) return fail(x, ASH_E_LIMIT, "nested deeper than %d", TMPL_MAX_NODE_DEPTH);
    n->depth = (uint16_t)(d + 1);
    return n;
}

static bool is_op(const parser *x, const char *op) { return cur(x)->kind == TK_OP && str_eq(cur(x)->s, op); }
static bool is_name(const parser *x, const char *w) { return cur(x)->kind == TK_NAME && str_eq(cur(x)->s, w); }
static bool take_op(parser *x, const char *op) {
    if (x->st != ASH_OK || !is_op(x, op)) return false;
    x->at++;
    return true;
}
static bool take_name(parser *x, const char *w) {
    if (x->st != ASH_OK || !is_name(x, w)) return false;
    x->at++;
    return true;
}

static const char *what(const parser *x, char buf[64]) {
    const tmpl_token *t = cur(x);
    switch (t->kind) {
    case TK_EOF: return "the end of the template";
    case TK_TEXT: return "text";
    case TK_EXPR_CLOSE: return "}}";
    case TK_STMT_CLOSE: return "%}";
    case TK_STR: return "a string";
    default: snprintf(buf, 64, "\"%.*s\"", (int)ASH_MIN(t->s.n, (size_t)40), t->s.p); return buf;
    }
}

static bool want_op(parser *x, const char *op) {
    if (take_op(x, op)) return true;
    char b[64];
    fail(x, ASH_E_FORMAT, "expected \"%s\", got %s", op, what(x, b));
    return false;
}

static bool enter(parser *x) {
    if (x->st != ASH_OK) return false;
    if (++x->depth > TMPL_MAX_NODE_DEPTH) {
        fail(x, ASH_E_LIMIT, "nested deeper than %d", TMPL_MAX_NODE_DEPTH);
        return false;
    }
    return true;
}

static tmpl_node *constant(parser *x, tv v) {
    tmpl_node *n = node(x, N_CONST);
    if (n) n->val = v;
    return n;
}

static tmpl_node *binary(parser *x, tmpl_kind kind, tmpl_op op, tmpl_node *a, tmpl_node *b) {
    tmpl_node *n = node(x, kind);
    if (!n) return NULL;
    n->op = (uint8_t)op;
    n->a = a;
    n->b = b;
    return deep(x, n);
}

/* Comma-separated, up to `close`; `dict`: key: value. Appends in order. */
static tmpl_node *items(parser *x, const char *close, bool dict, bool kwargs) {
    tmpl_node *first = NULL, **tail = &first;
    int n = 0;
    while (x->st == ASH_OK && !take_op(x, close)) {
        if (n++ && (!want_op(x, ",") || take_op(x, close))) break;
        ash_str kw = {NULL, 0};
        if (kwargs && cur(x)->kind == TK_NAME && x->t[x->at + 1].kind == TK_OP && str_eq(x->t[x->at + 1].s, "=")) {
            kw = cur(x)->s;
            x->at += 2;
        }
        if (kwargs && n > TMPL_MAX_ARGS) return fail(x, ASH_E_LIMIT, "more than %d arguments", TMPL_MAX_ARGS);
        tmpl_node *e = expr(x);
        if (!e) return NULL;
        /* a node can be in one list only: wrap it */
        e->kw = kw;
        *tail = e;
        tail = &e->next;
        if (dict) {
            if (!want_op(x, ":") || !(e = expr(x))) return NULL;
            *tail = e;
            tail = &e->next;
        }
    }
    return x->st == ASH_OK ? first : NULL;
}

/* One expression, or several with commas between: a tuple. `cond`: x if c else y is allowed in it. */
static tmpl_node *tuple(parser *x, bool cond) {
    tmpl_node *e = cond ? expr(x) : or_expr(x), *n;
    if (!e || !is_op(x, ",")) return e;
    if (!(n = node(x, N_TUPLE))) return NULL;
    n->args = e;
    for (tmpl_node **tail = &e->next; take_op(x, ","); tail = &(*tail)->next) {
        const tmpl_token *t = cur(x);
        if (t->kind == TK_STMT_CLOSE || t->kind == TK_EXPR_CLOSE || is_op(x, ")") || is_op(x, "=") || is_name(x, "in")) break;
        if (!(*tail = cond ? expr(x) : or_expr(x))) return NULL;
    }
    return deep(x, n);
}

static tmpl_node *primary(parser *x) {
    const tmpl_token *t = cur(x);
    tmpl_node *n = NULL;
    char b[64];
    switch (t->kind) {
    case TK_NAME:
        x->at++;
        if (str_eq(t->s, "true") || str_eq(t->s, "True")) return constant(x, tv_bool(true));
        if (str_eq(t->s, "false") || str_eq(t->s, "False")) return constant(x, tv_bool(false));
        if (str_eq(t->s, "none") || str_eq(t->s, "None")) return constant(x, (tv){.kind = TV_NONE});
        if ((n = node(x, N_NAME))) n->s = t->s;
        return n;
    case TK_STR: {
        x->at++;
        ash_str s = t->s;
        while (cur(x)->kind == TK_STR) { /* neighbours join */
            ash_str u = cur(x)->s;
            char *p = ash_arena_alloc(x->a, s.n + u.n + 1);
            if (!p) {
                x->st = ash_fail(x->err, ASH_E_NOMEM, "out of memory for a template");
                return NULL;
            }
            memcpy(p, s.p, s.n);
            memcpy(p + s.n, u.p, u.n);
            s = (ash_str){p, s.n + u.n};
            x->at++;
        }
        return constant(x, tv_str(s.p, s.n));
    }
    case TK_INT: x->at++; return constant(x, tv_int(t->i));
    case TK_FLOAT: x->at++; return constant(x, (tv){.kind = TV_FLOAT, .u.f = t->f});
    case TK_OP:
        if (take_op(x, "[")) {
            if (!(n = node(x, N_LIST))) return NULL;
            n->args = items(x, "]", false, false);
            return deep(x, n);
        }
        if (take_op(x, "{")) {
            if (!(n = node(x, N_DICT))) return NULL;
            n->args = items(x, "}", true, false);
            return deep(x, n);
        }
        if (take_op(x, "(")) {
            if (take_op(x, ")")) return node(x, N_TUPLE);
            n = tuple(x, true);
            return want_op(x, ")") ? n : NULL;
        }
        break;
    default: break;
    }
    return fail(x, ASH_E_FORMAT, "expected a value, got %s", what(x, b));
}

static tmpl_node *subscript(parser *x, tmpl_node *a) {
    tmpl_node *part[3] = {NULL, NULL, NULL};
    int n = 0;
    bool slice = false;
    for (;;) {
        if (!is_op(x, ":") && !is_op(x, "]")) {
            part[n] = expr(x);
            if (!part[n]) return NULL;
        }
        if (take_op(x, "]")) break;
        if (n == 2 || !want_op(x, ":")) return fail(x, ASH_E_FORMAT, "expected \"]\"");
        slice = true;
        n++;
    }
    if (!slice && !part[0]) return fail(x, ASH_E_FORMAT, "an empty subscript");
    tmpl_node *r = node(x, slice ? N_SLICE : N_ITEM);
    if (!r) return NULL;
    r->a = a;
    r->b = part[0];
    r->c = part[1];
    r->d = part[2];
    return deep(x, r);
}

static tmpl_node *postfix(parser *x, tmpl_node *a) {
    while (a && x->st == ASH_OK) {
        tmpl_node *n;
        if (take_op(x, ".")) {
            if (cur(x)->kind == TK_INT) {
                if (!(n = node(x, N_ITEM))) return NULL;
                n->b = constant(x, tv_int(cur(x)->i));
            } else if (cur(x)->kind == TK_NAME) {
                if (!(n = node(x, N_ATTR))) return NULL;
                n->s = cur(x)->s;
            } else
                return fail(x, ASH_E_FORMAT, "expected a name after \".\"");
            x->at++;
            n->a = a;
            a = deep(x, n);
        } else if (take_op(x, "["))
            a = subscript(x, a);
        else if (take_op(x, "(")) {
            if (!(n = node(x, N_CALL))) return NULL;
            n->a = a;
            n->args = items(x, ")", false, true);
            a = deep(x, n);
        } else
            break;
    }
    return a;
}

static tmpl_node *filters_tests(parser *x, tmpl_node *a) {
    while (a && x->st == ASH_OK) {
        tmpl_node *n;
        if (take_op(x, "|")) {
            if (cur(x)->kind != TK_NAME) return fail(x, ASH_E_FORMAT, "expected a filter's name");
            if (!(n = node(x, N_FILTER))) return NULL;
            n->s = cur(x)->s;
            x->at++;
            n->a = a;
            if (take_op(x, "(")) n->args = items(x, ")", false, true);
            a = deep(x, n);
        } else if (take_name(x, "is")) {
            if (!(n = node(x, N_TEST))) return NULL;
            n->op = take_name(x, "not") ? OP_NOT : 0;
            if (cur(x)->kind != TK_NAME) return fail(x, ASH_E_FORMAT, "expected a test's name");
            n->s = cur(x)->s;
            x->at++;
            n->a = a;
            tk_kind k = cur(x)->kind;
            if (take_op(x, "("))
                n->args = items(x, ")", false, true);
            else if (k == TK_STR || k == TK_INT || k == TK_FLOAT || is_op(x, "[") || is_op(x, "{") ||
                     (k == TK_NAME && !is_name(x, "else") && !is_name(x, "or") && !is_name(x, "and") && !is_name(x, "is") &&
                      !is_name(x, "if") && !is_name(x, "in") && !is_name(x, "not")))
                n->args = postfix(x, primary(x)); /* `x is divisibleby 3` */
            a = deep(x, n);
        } else if (is_op(x, "(") && a->kind == N_FILTER) {
            return fail(x, ASH_E_UNSUPPORTED, "calling a filter's result is not supported");
        } else
            break;
    }
    return a;
}

static tmpl_node *unary(parser *x, bool filters) {
    if (!enter(x)) return NULL;
    tmpl_node *n = NULL;
    if (is_op(x, "-") || is_op(x, "+")) {
        tmpl_op op = is_op(x, "-") ? OP_NEG : OP_POS;
        x->at++;
        if ((n = node(x, N_UNARY))) {
            n->op = (uint8_t)op;
            n->a = unary(x, false);
            n = deep(x, n);
        }
    } else
        n = primary(x);
    n = postfix(x, n);
    if (filters) n = filters_tests(x, n);
    x->depth--;
    return x->st == ASH_OK ? n : NULL;
}

typedef struct {
    const char *text;
    tmpl_op op;
} op_row;

static bool take_row(parser *x, const op_row *rows, size_t n, tmpl_op *op) {
    for (size_t i = 0; i < n; i++)
        if (take_op(x, rows[i].text)) return *op = rows[i].op, true;
    return false;
}

static tmpl_node *power(parser *x) {
    tmpl_node *a = unary(x, true);
    while (a && take_op(x, "**")) a = binary(x, N_BINARY, OP_POW, a, unary(x, true));
    return a;
}

static tmpl_node *product(parser *x) {
    static const op_row rows[] = {{"*", OP_MUL}, {"//", OP_FLOORDIV}, {"/", OP_DIV}, {"%", OP_MOD}};
    tmpl_node *a = power(x);
    tmpl_op op;
    while (a && take_row(x, rows, ASH_ARRAY_LEN(rows), &op)) a = binary(x, N_BINARY, op, a, power(x));
    return a;
}

static tmpl_node *concat(parser *x) {
    tmpl_node *a = product(x);
    while (a && take_op(x, "~")) a = binary(x, N_BINARY, OP_CONCAT, a, product(x));
    return a;
}

static tmpl_node *sum(parser *x) {
    static const op_row rows[] = {{"+", OP_ADD}, {"-", OP_SUB}};
    tmpl_node *a = concat(x);
    tmpl_op op;
    while (a && take_row(x, rows, ASH_ARRAY_LEN(rows), &op)) a = binary(x, N_BINARY, op, a, concat(x));
    return a;
}

static tmpl_node *comparison(parser *x) {
    static const op_row rows[] = {{"==", OP_EQ}, {"!=", OP_NE}, {"<=", OP_LE}, {">=", OP_GE}, {"<", OP_LT}, {">", OP_GT}};
    tmpl_node *a = sum(x), *all = NULL;
    while (a && x->st == ASH_OK) {
        tmpl_op op;
        if (take_row(x, rows, ASH_ARRAY_LEN(rows), &op)) {
        } else if (take_name(x, "in"))
            op = OP_IN;
        else if (is_name(x, "not") && x->t[x->at + 1].kind == TK_NAME && str_eq(x->t[x->at + 1].s, "in")) {
            x->at += 2;
            op = OP_NOT_IN;
        } else
            break;
        tmpl_node *b = sum(x), *one = binary(x, N_BINARY, op, a, b);
        all = all ? binary(x, N_AND, 0, all, one) : one; /* a < b < c: a < b and b < c */
        a = b;
    }
    return all ? all : a;
}

static tmpl_node *not_expr(parser *x) {
    if (!enter(x)) return NULL;
    tmpl_node *n;
    if (take_name(x, "not")) {
        n = node(x, N_UNARY);
        if (n) {
            n->op = OP_NOT;
            n->a = not_expr(x);
            n = deep(x, n);
        }
    } else
        n = comparison(x);
    x->depth--;
    return x->st == ASH_OK ? n : NULL;
}

static tmpl_node *and_expr(parser *x) {
    tmpl_node *a = not_expr(x);
    while (a && take_name(x, "and")) a = binary(x, N_AND, 0, a, not_expr(x));
    return a;
}

static tmpl_node *or_expr(parser *x) {
    tmpl_node *a = and_expr(x);
    while (a && take_name(x, "or")) a = binary(x, N_OR, 0, a, and_expr(x));
    return a;
}

static tmpl_node *expr(parser *x) {
    if (!enter(x)) return NULL;
    tmpl_node *b = or_expr(x);
    while (b && take_name(x, "if")) {
        tmpl_node *n = node(x, N_COND);
        if (!n) return NULL;
        n->b = b;
        n->a = or_expr(x);
        if (take_name(x, "else")) n->c = expr(x);
        b = deep(x, n);
    }
    x->depth--;
    return x->st == ASH_OK ? b : NULL;
}

/* ---- statements ---- */
static bool close_stmt(parser *x) {
    if (x->st != ASH_OK) return false;
    if (cur(x)->kind == TK_STMT_CLOSE) return x->at++, true;
    char b[64];
    fail(x, ASH_E_FORMAT, "expected \"%%}\", got %s", what(x, b));
    return false;
}

/* At "{% word": is it that word? */
static bool at_stmt(const parser *x, const char *w) {
    return cur(x)->kind == TK_STMT_OPEN && x->t[x->at + 1].kind == TK_NAME && str_eq(x->t[x->at + 1].s, w);
}
static bool take_stmt(parser *x, const char *w) {
    if (x->st != ASH_OK || !at_stmt(x, w)) return false;
    x->at += 2;
    return true;
}

static tmpl_node *if_stmt(parser *x) {
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    if (!enter(x)) return NULL;
    tmpl_node *n = node(x, N_IF);
    if (!n) return NULL;
    n->a = expr(x);
    if (!close_stmt(x)) return NULL;
    n->b = statements(x, ends);
    if (take_stmt(x, "elif"))
        n->c = if_stmt(x); /* eats the endif */
    else {
        if (take_stmt(x, "else")) {
            if (!close_stmt(x)) return NULL;
            n->c = statements(x, ends + 2);
        }
        if (!take_stmt(x, "endif")) return fail(x, ASH_E_FORMAT, "{%% if %%} of line %u has no {%% endif %%}", n->line);
        if (!close_stmt(x)) return NULL;
    }
    x->depth--;
    return deep(x, n);
}

static tmpl_node *for_stmt(parser *x) {
    static const char *const ends[] = {"else", "endfor", NULL};
    tmpl_node *n = node(x, N_FOR), **tail = n ? &n->args : NULL;
    if (!n) return NULL;
    bool paren = take_op(x, "(");
    do {
        if (cur(x)->kind != TK_NAME) return fail(x, ASH_E_FORMAT, "expected a loop variable");
        tmpl_node *v = node(x, N_NAME);
        if (!v) return NULL;
        v->s = cur(x)->s;
        x->at++;
        *tail = v;
        tail = &v->next;
    } while (take_op(x, ","));
    if (paren && !want_op(x, ")")) return NULL;
    if (!take_name(x, "in")) return fail(x, ASH_E_FORMAT, "expected \"in\"");
    n->a = tuple(x, false);
    if (take_name(x, "if")) n->d = expr(x);
    if (x->st == ASH_OK && is_name(x, "recursive")) return fail(x, ASH_E_UNSUPPORTED, "a recursive loop is not supported");
    if (!close_stmt(x)) return NULL;
    n->b = statements(x, ends);
    if (take_stmt(x, "else")) {
        if (!close_stmt(x)) return NULL;
        n->c = statements(x, ends + 1);
    }
    if (!take_stmt(x, "endfor")) return fail(x, ASH_E_FORMAT, "{%% for %%} of line %u has no {%% endfor %%}", n->line);
    if (!close_stmt(x)) return NULL;
    return deep(x, n);
}

static tmpl_node *set_target(parser *x) {
    tmpl_node *n, *at;
    if (cur(x)->kind != TK_NAME) return fail(x, ASH_E_FORMAT, "expected a name after \"set\"");
    if (!(n = node(x, N_NAME))) return NULL;
    n->s = cur(x)->s;
    x->at++;
    if (!take_op(x, ".")) return n;
    if (!(at = node(x, N_ATTR))) return NULL;
    if (cur(x)->kind != TK_NAME) return fail(x, ASH_E_FORMAT, "expected a name after \".\"");
    at->s = cur(x)->s;
    at->a = n;
    x->at++;
    return at;
}

/* `| f(x) | g` without a value in front: FILTER nodes, the innermost one has no a. */
static tmpl_node *filter_chain(parser *x, bool bar) {
    tmpl_node *a = NULL;
    while (x->st == ASH_OK && (!bar || take_op(x, "|"))) {
        bar = true;
        tmpl_node *n;
        if (cur(x)->kind != TK_NAME) return fail(x, ASH_E_FORMAT, "expected a filter's name");
        if (!(n = node(x, N_FILTER))) return NULL;
        n->s = cur(x)->s;
        x->at++;
        n->a = a;
        if (take_op(x, "(")) n->args = items(x, ")", false, true);
        a = deep(x, n);
    }
    return a;
}

/* The body of a block up to {% end %}, which is eaten. */
static tmpl_node *body(parser *x, const char *word, const char *end, uint32_t line) {
    const char *const ends[] = {end, NULL};
    if (!close_stmt(x)) return NULL;
    tmpl_node *b = statements(x, ends);
    if (!take_stmt(x, end)) return fail(x, ASH_E_FORMAT, "{%% %s %%} of line %u has no {%% %s %%}", word, line, end);
    close_stmt(x);
    return b;
}

static tmpl_node *set_stmt(parser *x) {
    tmpl_node *n = node(x, N_SET), **tail = n ? &n->args : NULL;
    if (!n) return NULL;
    do { /* a, b = 1, 2 */
        if (n->args && is_op(x, "=")) break;
        if (!(*tail = set_target(x))) return NULL;
        tail = &(*tail)->next;
    } while (take_op(x, ","));
    if (is_op(x, "|") || cur(x)->kind == TK_STMT_CLOSE) {
        n->kind = N_SET_BLOCK;
        if (n->args->next) return fail(x, ASH_E_FORMAT, "a {%% set %%} block sets one name");
        n->c = filter_chain(x, true);
        n->b = body(x, "set", "endset", n->line);
        return deep(x, n);
    }
    if (!want_op(x, "=")) return NULL;
    n->b = tuple(x, true);
    return close_stmt(x) ? deep(x, n) : NULL;
}

static tmpl_node *with_stmt(parser *x) {
    tmpl_node *n = node(x, N_WITH), **tail = n ? &n->args : NULL;
    while (n && x->st == ASH_OK && cur(x)->kind != TK_STMT_CLOSE) {
        if (n->args && !want_op(x, ",")) return NULL;
        if (!(*tail = set_target(x)) || !want_op(x, "=")) return NULL;
        tail = &(*tail)->next;
        if (!(*tail = expr(x))) return NULL;
        tail = &(*tail)->next;
    }
    if (n) n->b = body(x, "with", "endwith", n->line);
    return deep(x, n);
}

static tmpl_node *filter_stmt(parser *x) {
    tmpl_node *n = node(x, N_FILTER_BLOCK);
    if (!n) return NULL;
    n->c = filter_chain(x, false);
    n->b = body(x, "filter", "endfilter", n->line);
    return deep(x, n);
}

/* {% generation %}: transformers' mark around what the assistant says; the text is the same without it. */
static tmpl_node *generation_stmt(parser *x) {
    tmpl_node *n = node(x, N_WITH);
    if (n) n->b = body(x, "generation", "endgeneration", n->line);
    return deep(x, n);
}

static tmpl_node *macro_stmt(parser *x) {
    tmpl_node *n = node(x, N_MACRO), **tail = n ? &n->args : NULL;
    if (!n) return NULL;
    if (cur(x)->kind != TK_NAME) return fail(x, ASH_E_FORMAT, "expected a macro's name");
    n->s = cur(x)->s;
    x->at++;
    if (!want_op(x, "(")) return NULL;
    for (int k = 0; x->st == ASH_OK && !take_op(x, ")"); k++) {
        if (k && (!want_op(x, ",") || take_op(x, ")"))) break;
        if (cur(x)->kind != TK_NAME) return fail(x, ASH_E_FORMAT, "expected a parameter's name");
        if (k == TMPL_MAX_ARGS) return fail(x, ASH_E_LIMIT, "more than %d parameters", TMPL_MAX_ARGS);
        if (!(*tail = node(x, N_NAME))) return NULL;
        (*tail)->s = cur(x)->s;
        x->at++;
        if (take_op(x, "=")) {
            (*tail)->b = expr(x);
            if (!deep(x, *tail)) return NULL;
        } else if (n->args != *tail && n->op)
            return fail(x, ASH_E_FORMAT, "a parameter without a default after one with");
        n->op = (*tail)->b != NULL;
        tail = &(*tail)->next;
    }
    n->b = body(x, "macro", "endmacro", n->line);
    return deep(x, n);
}

static tmpl_node *statement(parser *x) {
    if (cur(x)->kind != TK_NAME) return fail(x, ASH_E_FORMAT, "expected a statement after {%%");
    ash_str w = cur(x)->s;
    x->at++;
    if (str_eq(w, "if")) return if_stmt(x);
    if (str_eq(w, "for")) return for_stmt(x);
    if (str_eq(w, "set")) return set_stmt(x);
    if (str_eq(w, "macro")) return macro_stmt(x);
    if (str_eq(w, "with")) return with_stmt(x);
    if (str_eq(w, "filter")) return filter_stmt(x);
    if (str_eq(w, "generation")) return generation_stmt(x);
    if (str_eq(w, "break") || str_eq(w, "continue")) {
        tmpl_node *n = node(x, str_eq(w, "break") ? N_BREAK : N_CONTINUE);
        return close_stmt(x) ? n : NULL;
    }
    static const char *const closers[] = {"endif",  "endfor",  "else",      "elif",          "endmacro",
                                          "endset", "endwith", "endfilter", "endgeneration", "endraw"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(closers); i++)
        if (str_eq(w, closers[i])) return fail(x, ASH_E_FORMAT, "{%% %s %%} without its beginning", closers[i]);
    return fail(x, ASH_E_UNSUPPORTED, "the statement {%% %.*s %%} is not supported", (int)ASH_MIN(w.n, (size_t)40), w.p);
}

/* Up to one of `ends` (not eaten) or the end of the template. */
static tmpl_node *statements(parser *x, const char *const *ends) {
    tmpl_node *first = NULL, **tail = &first;
    if (!enter(x)) return NULL;
    while (x->st == ASH_OK && cur(x)->kind != TK_EOF) {
        tmpl_node *n = NULL;
        if (cur(x)->kind == TK_TEXT) {
            if ((n = node(x, N_TEXT))) n->s = cur(x)->s;
            x->at++;
        } else if (cur(x)->kind == TK_EXPR_OPEN) {
            x->at++;
            if (!(n = node(x, N_PRINT))) return NULL;
            n->a = tuple(x, true);
            char b[64];
            if (x->st == ASH_OK && cur(x)->kind != TK_EXPR_CLOSE) return fail(x, ASH_E_FORMAT, "expected \"}}\", got %s", what(x, b));
            x->at++;
            n = deep(x, n);
        } else {
            bool end = false;
            for (size_t i = 0; ends && ends[i]; i++) end = end || at_stmt(x, ends[i]);
            if (end) break;
            x->at++;
            n = statement(x);
        }
        if (!n) break;
        *tail = n;
        tail = &n->next;
    }
    x->depth--;
    return x->st == ASH_OK ? first : NULL;
}

ash_status ash_tmpl_tree(ash_arena *a, const tmpl_token *t, size_t n, tmpl_node **out, ash_error *err) {
    parser x = {.a = a, .t = t, .n = n, .err = err};
    *out = statements(&x, NULL);
    return x.st;
}
