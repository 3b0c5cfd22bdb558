/* matcher.c - one position in a text that keeps to a grammar.
 *
 * All (node, stack) pairs at which the next byte may be read are one state; states are found again by their pairs,
 * and where each class of bytes leads from a state is remembered, so that a second visit costs one look-up: a
 * deterministic automaton that grows where the text goes. Stacks share their tails. The tables have a fixed size; when
 * one is full, everything but the current position is forgotten. */
#include "engine/grammar_int.h"

#include <stdlib.h>

static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 31) * 0x9e3779b97f4a7c15u;
    return x ^ x >> 29;
}

/* ---- stacks ---- */
static uint32_t push(ash_matcher *m, uint32_t ret, uint32_t parent) {
    uint32_t mask = GR_STACK * 2 - 1, i = (uint32_t)mix((uint64_t)ret << 32 | parent) & mask;
    for (; m->frame_slot[i]; i = (i + 1) & mask) {
        const gr_frame *f = &m->frame[m->frame_slot[i]];
        if (f->ret == ret && f->parent == parent) return m->frame_slot[i];
    }
    if (m->n_frame == GR_STACK) return m->full = true, 0;
    m->frame[m->n_frame] = (gr_frame){ret, parent};
    return m->frame_slot[i] = m->n_frame++;
}

/* ---- closure: all places that read, from (node, stack) pairs by ways that read nothing ---- */
typedef struct {
    uint32_t n;
    bool accept;
} closure;

static void closure_begin(ash_matcher *m) {
    if (++m->now == 0) { /* wrapped: the marks mean nothing any more */
        memset(m->epoch, 0, GR_SEEN * sizeof *m->epoch);
        m->now = 1;
    }
}

static bool first_visit(ash_matcher *m, uint64_t pair, uint32_t *count) {
    uint32_t i = (uint32_t)mix(pair) & (GR_SEEN - 1);
    for (; m->epoch[i] == m->now; i = (i + 1) & (GR_SEEN - 1))
        if (m->seen[i] == pair) return false;
    if (++*count > GR_SEEN / 2) return m->full = true, false;
    m->epoch[i] = m->now;
    m->seen[i] = pair;
    return true;
}

/* `visited` counts over one whole step. The work list cannot overflow: every pair visited adds at most two. */
static void expand(ash_matcher *m, closure *c, uint32_t *visited, uint32_t node, uint32_t stack) {
    const gnode *all = m->g->node;
    uint32_t n = 0;
    m->work[n++] = (uint64_t)node << 32 | stack;
    while (n && !m->full) {
        uint64_t pair = m->work[--n];
        if (!first_visit(m, pair, visited)) continue;
        uint32_t i = (uint32_t)(pair >> 32), s = (uint32_t)pair;
        const gnode *g = &all[i];
        switch ((gn_kind)g->kind) {
        case GN_RANGE: m->out[c->n++] = pair; break;
        case GN_SPLIT:
            m->work[n++] = (uint64_t)g->alt << 32 | s;
            m->work[n++] = (uint64_t)g->next << 32 | s;
            break;
        case GN_CALL: /* nothing left to do after the call: come back to the caller instead */
            if (g->next != 0) s = push(m, g->next, s);
            m->work[n++] = (uint64_t)g->alt << 32 | s;
            break;
        case GN_RET:
            if (s == 0)
                c->accept = true;
            else
                m->work[n++] = (uint64_t)m->frame[s].ret << 32 | m->frame[s].parent;
        }
    }
}

/* ---- states ---- */
static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint32_t intern(ash_matcher *m, closure c) {
    if (c.n == 0 && !c.accept) return GR_DEAD;
    if (c.n > 32)
        qsort(m->out, c.n, sizeof *m->out, by_value);
    else
        for (uint32_t i = 1; i < c.n; i++) {
            uint64_t x = m->out[i];
            uint32_t j = i;
            for (; j > 0 && m->out[j - 1] > x; j--) m->out[j] = m->out[j - 1];
            m->out[j] = x;
        }
    uint64_t h = c.accept;
    for (uint32_t i = 0; i < c.n; i++) h = mix(h + m->out[i]);
    uint32_t mask = GR_SETS * 2 - 1, i = (uint32_t)h & mask;
    for (; m->set_slot[i]; i = (i + 1) & mask) {
        const gr_set *s = &m->set[m->set_slot[i]];
        if (s->n == c.n && s->accept == c.accept && memcmp(m->cfg + s->off, m->out, c.n * sizeof *m->out) == 0) return m->set_slot[i];
    }
    if (m->n_set == GR_SETS || c.n > GR_CONFIGS - m->n_cfg) return m->full = true, GR_DEAD;
    memcpy(m->cfg + m->n_cfg, m->out, c.n * sizeof *m->out);
    m->set[m->n_set] = (gr_set){m->n_cfg, c.n, 0, c.accept};
    m->n_cfg += c.n;
    for (uint32_t k = 0; k < m->g->n_cls; k++) m->next[m->n_set * m->g->n_cls + k] = GR_UNKNOWN;
    return m->set_slot[i] = m->n_set++;
}

uint32_t ash_gr_step(ash_matcher *m, uint32_t set, uint8_t byte) {
    uint32_t *to = &m->next[set * m->g->n_cls + m->g->cls[byte]];
    if (ASH_LIKELY(*to != GR_UNKNOWN)) return *to;
    closure c = {0, false};
    uint32_t visited = 0;
    closure_begin(m);
    for (uint32_t i = 0; i < m->set[set].n && !m->full; i++) {
        uint64_t pair = m->cfg[m->set[set].off + i];
        const gnode *g = &m->g->node[pair >> 32];
        if (byte >= g->lo && byte <= g->hi) expand(m, &c, &visited, g->next, (uint32_t)pair);
    }
    uint32_t s = m->full ? GR_DEAD : intern(m, c);
    if (m->full) return GR_DEAD;
    return *to = s;
}

/* ---- tables ---- */
static void clear(ash_matcher *m) {
    memset(m->set_slot, 0, GR_SETS * 2 * sizeof *m->set_slot);
    memset(m->frame_slot, 0, GR_STACK * 2 * sizeof *m->frame_slot);
    m->n_frame = 1;
    m->n_cfg = 0;
    m->set[GR_DEAD] = (gr_set){0};
    m->n_set = 1;
    for (uint32_t k = 0; k < m->g->n_cls; k++) m->next[k] = GR_DEAD;
    memset(m->owner, 0, GR_MASKS * sizeof *m->owner);
    m->hand = 0;
    m->full = false;
}

static void start(ash_matcher *m) {
    closure c = {0, false};
    uint32_t visited = 0;
    closure_begin(m);
    expand(m, &c, &visited, m->g->start, 0);
    m->begin = m->full ? GR_DEAD : intern(m, c);
    if (m->full) m->broken = true;
}

/* The stack `id` of the old frames in the new table; deep stacks are walked, not recursed into. */
static uint32_t move_stack(ash_matcher *m, const gr_frame *old, uint32_t *moved, uint32_t *path, uint32_t id) {
    uint32_t n = 0;
    while (id && !moved[id]) path[n++] = id, id = old[id].parent;
    uint32_t to = id ? moved[id] : 0;
    while (n) {
        to = push(m, old[path[n - 1]].ret, to);
        moved[path[--n]] = to;
    }
    return to;
}

bool ash_gr_flush(ash_matcher *m) {
    /* the only allocations after new(), at most once in thousands of tokens */
    gr_set cur = m->set[m->cur];
    gr_frame *old = ash_alloc(m->n_frame * sizeof *old);
    uint32_t *moved = ash_calloc(m->n_frame, sizeof *moved), *path = ash_alloc(m->n_frame * sizeof *path);
    uint64_t *cfg = ash_alloc((size_t)cur.n * sizeof *cfg + 1);
    bool dead = m->cur == GR_DEAD;
    if (old && moved && path && cfg && cur.n <= GR_SEEN) {
        memcpy(old, m->frame, m->n_frame * sizeof *old);
        if (cur.n) memcpy(cfg, m->cfg + cur.off, cur.n * sizeof *cfg);
        clear(m);
        start(m);
        for (uint32_t i = 0; i < cur.n; i++) m->out[i] = (cfg[i] >> 32 << 32) | move_stack(m, old, moved, path, (uint32_t)cfg[i]);
        m->cur = dead ? GR_DEAD : intern(m, (closure){cur.n, cur.accept});
        if (m->full) m->broken = true;
    } else
        m->broken = true;
    ash_free(old);
    ash_free(moved);
    ash_free(path);
    ash_free(cfg);
    return !m->broken;
}

/* ---- public ---- */
ash_status ash_matcher_new(ash_matcher **out, const ash_grammar *g, const ash_vocab *v, ash_error *err) {
    *out = NULL;
    ash_matcher *m = ash_calloc(1, sizeof *m);
    if (!m) return ash_fail(err, ASH_E_NOMEM, "out of memory for a grammar's position");
    m->g = g;
    ash_status st = v ? ash_gr_vocab_new(&m->gv, v, err) : ASH_OK;
    if (st != ASH_OK) {
        ash_matcher_free(m);
        return st;
    }
    m->set = ash_alloc(GR_SETS * sizeof *m->set);
    m->next = ash_alloc((size_t)GR_SETS * g->n_cls * sizeof *m->next);
    m->set_slot = ash_alloc(GR_SETS * 2 * sizeof *m->set_slot);
    m->cfg = ash_alloc(GR_CONFIGS * sizeof *m->cfg);
    m->frame = ash_alloc(GR_STACK * sizeof *m->frame);
    m->frame_slot = ash_alloc(GR_STACK * 2 * sizeof *m->frame_slot);
    m->seen = ash_alloc(GR_SEEN * sizeof *m->seen);
    m->work = ash_alloc((GR_SEEN + 2) * sizeof *m->work);
    m->out = ash_alloc(GR_SEEN * sizeof *m->out);
    m->epoch = ash_calloc(GR_SEEN, sizeof *m->epoch);
    m->mask = ash_alloc((size_t)GR_MASKS * m->gv.n_words * sizeof *m->mask);
    m->owner = ash_alloc(GR_MASKS * sizeof *m->owner);
    m->path = ash_alloc((m->gv.max_len + 2) * sizeof *m->path);
    if (!m->set || !m->next || !m->set_slot || !m->cfg || !m->frame || !m->frame_slot || !m->seen || !m->work || !m->out || !m->epoch ||
        !m->mask || !m->owner || !m->path) {
        ash_matcher_free(m);
        return ash_fail(err, ASH_E_NOMEM, "out of memory for a grammar's position");
    }
    clear(m);
    start(m);
    m->cur = m->begin;
    if (m->broken) {
        ash_matcher_free(m);
        return ash_fail(err, ASH_E_LIMIT, "the grammar is too ambiguous: more than %d ways to begin", GR_SEEN / 2);
    }
    *out = m;
    return ASH_OK;
}

void ash_matcher_free(ash_matcher *m) {
    if (!m) return;
    void *own[] = {m->set,  m->next, m->set_slot, m->cfg,  m->frame, m->frame_slot, m->seen,
                   m->work, m->out,  m->epoch,    m->mask, m->owner, m->path};
    for (size_t i = 0; i < ASH_ARRAY_LEN(own); i++) ash_free(own[i]);
    ash_gr_vocab_free(&m->gv);
    ash_free(m);
}

void ash_matcher_reset(ash_matcher *m) {
    m->cur = m->begin;
    if (m->broken) { /* what was too much may be far from the beginning */
        m->broken = false;
        clear(m);
        start(m);
        m->cur = m->begin;
    }
}

static uint32_t walk(ash_matcher *m, const char *p, size_t n) {
    uint32_t s = m->cur;
    for (size_t i = 0; i < n && s != GR_DEAD; i++) s = ash_gr_step(m, s, (uint8_t)p[i]);
    return s;
}

bool ash_matcher_text(ash_matcher *m, const char *p, size_t n) {
    for (size_t i = 0; i < n && !m->broken && m->cur != GR_DEAD; i++) {
        uint32_t s = ash_gr_step(m, m->cur, (uint8_t)p[i]);
        if (m->full && ash_gr_flush(m)) s = ash_gr_step(m, m->cur, (uint8_t)p[i]);
        m->broken = m->broken || m->full;
        m->cur = s;
    }
    return !m->broken && (n == 0 || m->cur != GR_DEAD);
}

bool ash_matcher_may_end(const ash_matcher *m) { return m->set[m->cur].accept; }

static bool is_eog(const ash_matcher *m, ash_token t) {
    for (int i = 0; i < m->gv.n_eog; i++)
        if (m->gv.eog[i] == t) return true;
    return false;
}

bool ash_matcher_allows(ash_matcher *m, ash_token t) {
    if (m->broken || !m->gv.v || t < 0 || t >= ash_vocab_size(m->gv.v)) return false;
    if (is_eog(m, t)) return m->set[m->cur].accept;
    uint32_t a = m->gv.off[t], b = m->gv.off[t + 1];
    if (a == b) return false;
    uint32_t s = walk(m, m->gv.raw + a, b - a);
    if (m->full) {
        if (!ash_gr_flush(m)) return false;
        s = walk(m, m->gv.raw + a, b - a);
        if (m->full) return m->broken = true, false;
    }
    return s != GR_DEAD;
}

ash_status ash_matcher_accept(ash_matcher *m, ash_token t, ash_error *err) {
    if (!ash_matcher_allows(m, t)) {
        ASH_TRY(ash_matcher_error(m, err));
        return ash_fail(err, ASH_E_FORMAT, "token %d does not fit the grammar here", t);
    }
    if (is_eog(m, t)) return m->cur = GR_DEAD, ASH_OK;
    m->cur = walk(m, m->gv.raw + m->gv.off[t], m->gv.off[t + 1] - m->gv.off[t]);
    return ASH_OK;
}

ash_status ash_matcher_error(const ash_matcher *m, ash_error *err) {
    if (!m->broken) return ASH_OK;
    return ash_fail(err, ASH_E_LIMIT, "the grammar is too ambiguous to follow: more than %d ways to read the text", GR_SEEN / 2);
}
