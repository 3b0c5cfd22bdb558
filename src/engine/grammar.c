/* grammar.c - from the tree of a grammar to its byte automaton, and the checks that bound what the matcher does:
 * every character set becomes ranges of UTF-8 bytes, repetition is unrolled within a limit, and a rule that can reach
 * itself without reading anything (left recursion) is refused. */
#include "engine/grammar_int.h"

#include <stdio.h>

typedef struct {
    gnode *node;
    uint32_t n, cap;
    int depth;
    ash_status st;
    ash_error *err;
} builder;

static uint32_t fail(builder *b, ash_status st, const char *msg) {
    if (b->st == ASH_OK) b->st = ash_fail(b->err, st, "%s", msg);
    return 0;
}

static uint32_t add(builder *b, gnode g) {
    if (b->st != ASH_OK) return 0;
    if (b->n == b->cap) {
        if (b->n >= GR_MAX_NODES) {
            b->st = ash_fail(b->err, ASH_E_LIMIT, "the grammar unrolls to more than %d states (a repetition is too big)", GR_MAX_NODES);
            return 0;
        }
        uint32_t cap = b->cap ? b->cap * 2 : 256;
        gnode *p = ash_realloc(b->node, cap * sizeof *p);
        if (!p) return fail(b, ASH_E_NOMEM, "out of memory for a grammar");
        b->node = p;
        b->cap = cap;
    }
    b->node[b->n] = g;
    return b->n++;
}
static uint32_t range(builder *b, uint32_t lo, uint32_t hi, uint32_t next) {
    return add(b, (gnode){.kind = GN_RANGE, .lo = (uint8_t)lo, .hi = (uint8_t)hi, .next = next});
}
static uint32_t split(builder *b, uint32_t one, uint32_t other) { return add(b, (gnode){.kind = GN_SPLIT, .next = one, .alt = other}); }

/* ---- characters ---- */
static int encode(uint32_t c, uint8_t o[4]) { return (int)ash_utf8_put(c, (char *)o); }

typedef struct {
    uint32_t node;
    bool any;
} ways; /* alternatives collected so far */
static void way(builder *b, ways *w, uint32_t node) {
    w->node = w->any ? split(b, node, w->node) : node;
    w->any = true;
}

/* lo..hi of the same encoded length: cut until every byte but the last differing one is fixed or full. */
static void same_length(builder *b, ways *w, uint32_t lo, uint32_t hi, uint32_t next) {
    uint8_t x[4], y[4];
    int n = encode(lo, x);
    encode(hi, y);
    for (int i = 1; i < n; i++) {
        uint32_t m = (1u << (6 * i)) - 1; /* values of the last i bytes */
        if ((lo & ~m) == (hi & ~m)) continue;
        if (lo & m) {
            same_length(b, w, lo, lo | m, next);
            same_length(b, w, (lo | m) + 1, hi, next);
            return;
        }
        if ((hi & m) != m) {
            same_length(b, w, lo, (hi & ~m) - 1, next);
            same_length(b, w, hi & ~m, hi, next);
            return;
        }
    }
    for (int i = n; i-- > 0;) next = range(b, x[i], y[i], next);
    way(b, w, next);
}

static uint32_t set(builder *b, const gx *g, uint32_t next) {
    static const uint32_t last[] = {0x7f, 0x7ff, 0xd7ff, 0xffff, 0x10ffff}, first[] = {0, 0x80, 0x800, 0xe000, 0x10000};
    ways w = {0, false};
    for (uint32_t i = 0; i < g->n_set && b->st == ASH_OK; i++)
        for (int k = 0; k < 5; k++) { /* by length, without the surrogates */
            uint32_t lo = ASH_MAX(g->set[i].lo, first[k]), hi = ASH_MIN(g->set[i].hi, last[k]);
            if (lo <= hi) same_length(b, &w, lo, hi, next);
        }
    /* nothing fits an empty class: a node that no byte enters */
    return w.any ? w.node : range(b, 1, 0, next);
}

/* ---- the tree, from back to front: `next` is where a match goes on ---- */
static uint32_t emit(builder *b, const gx *g, uint32_t next);

static uint32_t sequence(builder *b, const gx *first, uint32_t next) {
    uint32_t n = 0;
    for (const gx *i = first; i; i = i->next) n++;
    if (!n) return next;
    if (n == 1) return emit(b, first, next);
    const gx **all = ash_alloc(n * sizeof *all);
    if (!all) return fail(b, ASH_E_NOMEM, "out of memory for a grammar");
    n = 0;
    for (const gx *i = first; i; i = i->next) all[n++] = i;
    while (n) next = emit(b, all[--n], next);
    ash_free(all);
    return next;
}

static uint32_t repeat(builder *b, const gx *g, uint32_t next) {
    uint32_t at = next;
    if (g->max == GR_INF) {
        at = split(b, 0, next); /* again, or on */
        uint32_t body = emit(b, g->kid, at);
        if (b->st == ASH_OK) b->node[at].next = body;
    } else
        for (uint32_t i = g->min; i < g->max && b->st == ASH_OK; i++) at = split(b, emit(b, g->kid, at), next);
    for (uint32_t i = 0; i < g->min && b->st == ASH_OK; i++) {
        uint32_t before = b->n, was = at;
        at = emit(b, g->kid, at);
        if (b->n == before && at == was) break; /* an item that is nothing */
    }
    return at;
}

static uint32_t emit(builder *b, const gx *g, uint32_t next) {
    if (b->st != ASH_OK) return 0;
    switch ((gx_kind)g->kind) {
    case GX_BYTES:
        for (size_t i = g->bytes.n; i-- > 0;) next = range(b, (uint8_t)g->bytes.p[i], (uint8_t)g->bytes.p[i], next);
        return next;
    case GX_SET: return set(b, g, next);
    case GX_SEQ: return sequence(b, g->kid, next);
    case GX_ALT: {
        ways w = {0, false};
        for (const gx *i = g->kid; i; i = i->next) way(b, &w, emit(b, i, next));
        return w.any ? w.node : next;
    }
    case GX_REP: return repeat(b, g, next);
    case GX_REF: return add(b, (gnode){.kind = GN_CALL, .next = next, .alt = g->rule});
    }
    return 0;
}

/* ---- checks ---- */
typedef struct {
    const gnode *node;
    const uint32_t *begin; /* of each rule */
    uint32_t n_rule, *stack, *mark, now;
    bool *nullable;
    uint64_t work;
} checker;

/* Can the rule match nothing, by what is known so far? With `calls`: also which rules it can enter before reading. */
static bool empty_reach(checker *c, uint32_t rule, void (*call)(void *, uint32_t), void *ctx) {
    uint32_t n = 0;
    bool ret = false;
    c->now++;
    c->stack[n++] = c->begin[rule];
    while (n) {
        uint32_t i = c->stack[--n];
        if (c->mark[i] == c->now) continue;
        c->mark[i] = c->now;
        c->work++;
        const gnode *g = &c->node[i];
        if (g->kind == GN_RET) ret = true;
        if (g->kind == GN_SPLIT) c->stack[n++] = g->alt, c->stack[n++] = g->next;
        if (g->kind == GN_CALL) {
            if (call) call(ctx, g->alt);
            if (c->nullable[g->alt]) c->stack[n++] = g->next;
        }
    }
    return ret;
}

typedef struct {
    uint32_t *list, n, cap;
    bool oom;
} calls;
static void note(void *ctx, uint32_t rule) {
    calls *l = ctx;
    if (l->n == l->cap) {
        uint32_t cap = l->cap ? l->cap * 2 : 64, *p = ash_realloc(l->list, cap * sizeof *p);
        if (!p) {
            l->oom = true;
            return;
        }
        l->list = p;
        l->cap = cap;
    }
    l->list[l->n++] = rule;
}

static ash_status check(builder *b, const gx_tree *t, const uint32_t *begin) {
    ash_status st = ASH_OK;
    const uint32_t R = t->n;
    calls l = {0};
    uint32_t *off = ash_calloc((size_t)R + 1, sizeof *off), *degree = ash_calloc(R, sizeof *degree), *queue = ash_calloc(R, sizeof *queue);
    checker c = {.node = b->node,
                 .begin = begin,
                 .n_rule = R,
                 .stack = ash_alloc(((size_t)b->n * 2 + 2) * sizeof *c.stack),
                 .mark = ash_calloc(b->n, sizeof *c.mark),
                 .nullable = ash_calloc(R, sizeof *c.nullable)};
    if (!off || !degree || !queue || !c.stack || !c.mark || !c.nullable) {
        st = ash_fail(b->err, ASH_E_NOMEM, "out of memory for a grammar");
        goto done;
    }
    for (bool more = true, back = false; more; back = !back) {
        more = false;
        for (uint32_t k = 0; k < R; k++) {
            uint32_t i = back ? k : R - 1 - k; /* references run both ways: so chains resolve in few rounds */
            if (!c.nullable[i] && empty_reach(&c, i, NULL, NULL)) c.nullable[i] = more = true;
            if (c.work > GR_MAX_WORK) {
                st = ash_fail(b->err, ASH_E_LIMIT, "the rules of the grammar refer to each other in too tangled a way");
                goto done;
            }
        }
    }
    for (uint32_t i = 0; i < R; i++) {
        off[i] = l.n;
        empty_reach(&c, i, note, &l);
    }
    off[R] = l.n;
    if (l.oom) {
        st = ash_fail(b->err, ASH_E_NOMEM, "out of memory for a grammar");
        goto done;
    }
    /* rules whose turn never comes when those without open callers go first stand on a cycle, or behind one */
    for (uint32_t i = 0; i < l.n; i++) degree[l.list[i]]++;
    uint32_t head = 0, tail = 0;
    for (uint32_t i = 0; i < R; i++)
        if (!degree[i]) queue[tail++] = i;
    while (head < tail) {
        uint32_t i = queue[head++];
        for (uint32_t k = off[i]; k < off[i + 1]; k++)
            if (--degree[l.list[k]] == 0) queue[tail++] = l.list[k];
    }
    if (tail < R) { /* going from caller to caller ends on the cycle itself */
        uint32_t *caller = queue, at = 0;
        for (uint32_t i = 0; i < R; i++)
            for (uint32_t k = off[i]; degree[i] && k < off[i + 1]; k++)
                if (degree[l.list[k]]) caller[l.list[k]] = at = i;
        for (uint32_t hop = 0; hop < R; hop++) at = caller[at];
        st = ash_fail(b->err, ASH_E_FORMAT,
                      "grammar line %u: the rule %.*s can begin with itself (left recursion), which is not possible here", t->rule[at].line,
                      (int)ASH_MIN(t->rule[at].name.n, (size_t)60), t->rule[at].name.p);
    }
done:
    ash_free(off);
    ash_free(degree);
    ash_free(queue);
    ash_free(c.stack);
    ash_free(c.mark);
    ash_free(c.nullable);
    ash_free(l.list);
    return st;
}

static void classes(ash_grammar *g) {
    bool edge[257] = {false};
    for (uint32_t i = 0; i < g->n; i++)
        if (g->node[i].kind == GN_RANGE && g->node[i].lo <= g->node[i].hi) edge[g->node[i].lo] = edge[g->node[i].hi + 1] = true;
    uint32_t c = 0;
    for (uint32_t i = 0; i < 256; i++) {
        if (i && edge[i]) c++;
        g->cls[i] = (uint8_t)c;
    }
    g->n_cls = c + 1;
}

ash_status ash_grammar_gbnf(ash_grammar **out, const char *src, size_t n, const char *root, ash_error *err) {
    *out = NULL;
    gx_tree t;
    builder b = {.err = err};
    uint32_t *begin = NULL;
    ash_grammar *g = NULL;
    const char *name = root ? root : "root";
    int64_t start = -1;
    ash_status st = ash_gbnf_parse(&t, src, n, err);
    if (st == ASH_OK && (start = ash_gbnf_find(&t, (ash_str){name, strlen(name)})) < 0)
        st = ash_fail(err, ASH_E_FORMAT, "the grammar has no rule \"%.60s\"", name);
    if (st != ASH_OK) goto done;
    begin = ash_calloc(t.n, sizeof *begin);
    g = ash_calloc(1, sizeof *g);
    if (!begin || !g) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a grammar");
        goto done;
    }
    add(&b, (gnode){.kind = GN_RET});
    for (uint32_t i = 0; i < t.n && b.st == ASH_OK; i++) begin[i] = emit(&b, t.rule[i].body, 0);
    ASH_TRY_GOTO(b.st, done);
    ASH_TRY_GOTO(check(&b, &t, begin), done);
    for (uint32_t i = 0; i < b.n; i++)
        if (b.node[i].kind == GN_CALL) b.node[i].alt = begin[b.node[i].alt];
    *g = (ash_grammar){.node = b.node, .n = b.n, .start = begin[start]};
    b.node = NULL;
    classes(g);
    *out = g;
    g = NULL;
done:
    ash_gbnf_free(&t);
    ash_free(begin);
    ash_free(b.node);
    ash_free(g);
    return st;
}

void ash_grammar_free(ash_grammar *g) {
    if (!g) return;
    ash_free(g->node);
    ash_free(g);
}

size_t ash_grammar_states(const ash_grammar *g) { return g->n; }
