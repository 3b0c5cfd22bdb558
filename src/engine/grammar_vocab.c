/* grammar_vocab.c - the vocabulary as a trie over bytes, and the mask of the tokens that fit: the trie is walked in
 * preorder with the state of each depth kept, so a byte is tried once for all tokens that share it, and a subtree
 * whose byte does not fit is skipped. Tokens of the same bytes share a node. */
#include "engine/grammar_int.h"

#include <stdlib.h>

enum { MAX_TOKEN = 1024 };

typedef struct {
    const char *p;
    uint32_t n;
    ash_token id;
} entry;
static int by_bytes(const void *a, const void *b) {
    const entry *x = a, *y = b;
    int r = memcmp(x->p, y->p, ASH_MIN(x->n, y->n));
    return r ? r : x->n != y->n ? (x->n > y->n) - (x->n < y->n) : (x->id > y->id) - (x->id < y->id);
}

void ash_gr_vocab_free(gr_vocab *gv) {
    ash_free(gv->node);
    ash_free(gv->tok);
    ash_free(gv->raw);
    ash_free(gv->off);
    *gv = (gr_vocab){0};
}

/* Raw bytes of all tokens that are text. */
static ash_status pieces(gr_vocab *gv, ash_error *err) {
    const ash_vocab *v = gv->v;
    int32_t n = ash_vocab_size(v);
    uint64_t total = 0;
    gv->off = ash_alloc(((size_t)n + 1) * sizeof *gv->off);
    if (!gv->off) return ash_fail(err, ASH_E_NOMEM, "out of memory for a grammar's vocabulary");
    for (int32_t t = 0; t < n; t++) {
        ash_token_type type = ash_vocab_token_type(v, t);
        bool text = type == ASH_TOK_NORMAL || type == ASH_TOK_BYTE || type == ASH_TOK_USER_DEFINED;
        size_t k = text && !ash_vocab_is_eog(v, t) ? ash_token_piece(v, t, false, NULL, 0) : 0;
        if (k > MAX_TOKEN) k = 0; /* such a token is never allowed */
        gv->off[t] = (uint32_t)total;
        total += k;
        if (total > UINT32_MAX / 2) return ash_fail(err, ASH_E_LIMIT, "the vocabulary's text is too long for a grammar");
        gv->max_len = ASH_MAX(gv->max_len, (uint32_t)k);
        if (ash_vocab_is_eog(v, t) && gv->n_eog < (int)ASH_ARRAY_LEN(gv->eog)) gv->eog[gv->n_eog++] = t;
    }
    gv->off[n] = (uint32_t)total;
    gv->raw = ash_alloc((size_t)total);
    if (!gv->raw) return ash_fail(err, ASH_E_NOMEM, "out of memory for a grammar's vocabulary");
    for (int32_t t = 0; t < n; t++)
        if (gv->off[t + 1] > gv->off[t]) ash_token_piece(v, t, false, gv->raw + gv->off[t], gv->off[t + 1] - gv->off[t]);
    return ASH_OK;
}

ash_status ash_gr_vocab_new(gr_vocab *gv, const ash_vocab *v, ash_error *err) {
    *gv = (gr_vocab){.v = v};
    int32_t n = ash_vocab_size(v);
    uint32_t *open = NULL, m = 0; /* open: nodes on the way to the last entry */
    gv->n_words = (uint32_t)((n + 63) / 64);
    entry *e = ash_alloc((size_t)n * sizeof *e);
    gv->tok = ash_alloc((size_t)n * sizeof *gv->tok);
    ash_status st = e && gv->tok ? pieces(gv, err) : ash_fail(err, ASH_E_NOMEM, "out of memory for a grammar's vocabulary");
    if (st != ASH_OK) goto done;
    for (int32_t t = 0; t < n; t++)
        if (gv->off[t + 1] > gv->off[t]) e[m++] = (entry){gv->raw + gv->off[t], gv->off[t + 1] - gv->off[t], t};
    if (m) qsort(e, m, sizeof *e, by_bytes);
    uint64_t nodes = 0;
    for (uint32_t i = 0, same; i < m; i++) {
        for (same = 0; i && same < e[i].n && same < e[i - 1].n && e[i].p[same] == e[i - 1].p[same];) same++;
        nodes += e[i].n - same;
    }
    gv->node = ash_alloc((size_t)nodes * sizeof *gv->node);
    open = ash_alloc((gv->max_len + 1) * sizeof *open);
    if (!gv->node || !open) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a grammar's vocabulary");
        goto done;
    }
    uint32_t depth = 0;
    for (uint32_t i = 0; i < m; i++) {
        uint32_t same = 0;
        while (i && same < e[i].n && same < e[i - 1].n && e[i].p[same] == e[i - 1].p[same]) same++;
        while (depth > same) gv->node[open[--depth]].skip = gv->n;
        for (; depth < e[i].n; depth++) {
            open[depth] = gv->n;
            gv->node[gv->n++] = (gr_trie){.tok = i, .depth = (uint16_t)depth, .byte = (uint8_t)e[i].p[depth]};
        }
        gr_trie *last = &gv->node[open[depth - 1]];
        if (!last->n_tok) last->tok = i;
        last->n_tok++;
        gv->tok[i] = e[i].id;
    }
    while (depth > 0) gv->node[open[--depth]].skip = gv->n;
done:
    ash_free(open);
    ash_free(e);
    if (st != ASH_OK) ash_gr_vocab_free(gv);
    return st;
}

static void fill(ash_matcher *m, uint64_t *mask) {
    const gr_vocab *gv = &m->gv;
    memset(mask, 0, gv->n_words * sizeof *mask);
    if (m->set[m->cur].accept)
        for (int i = 0; i < gv->n_eog; i++) mask[gv->eog[i] >> 6] |= 1ull << (gv->eog[i] & 63);
    m->path[0] = m->cur;
    const uint32_t n_cls = m->g->n_cls;
    for (uint32_t i = 0; i < gv->n;) {
        const gr_trie *t = &gv->node[i];
        uint32_t set = m->path[t->depth], to = m->next[set * n_cls + m->g->cls[t->byte]];
        if (ASH_UNLIKELY(to == GR_UNKNOWN)) {
            to = ash_gr_step(m, set, t->byte);
            if (m->full) return;
        }
        if (to == GR_DEAD) {
            i = t->skip;
            continue;
        }
        m->path[t->depth + 1] = to;
        for (uint32_t k = 0; k < t->n_tok; k++) {
            ash_token id = gv->tok[t->tok + k];
            mask[id >> 6] |= 1ull << (id & 63);
        }
        i++;
    }
}

const uint64_t *ash_matcher_mask(ash_matcher *m, bool cached) {
    if (m->broken || !m->gv.v) return NULL;
    gr_set *s = &m->set[m->cur];
    if (s->mask) return m->mask + (size_t)(s->mask - 1) * m->gv.n_words;
    if (cached) return NULL;
    for (int round = 0; round < 2; round++) {
        uint32_t slot = m->hand;
        uint64_t *mask = m->mask + (size_t)slot * m->gv.n_words;
        fill(m, mask);
        if (!m->full) {
            m->hand = (slot + 1) % GR_MASKS;
            if (m->owner[slot]) m->set[m->owner[slot]].mask = 0;
            m->owner[slot] = m->cur;
            m->set[m->cur].mask = slot + 1;
            return mask;
        }
        if (round == 0 && !ash_gr_flush(m)) return NULL;
    }
    m->broken = true;
    return NULL;
}
