/* grammar_int.h - what the grammar files share: the syntax tree of GBNF, and the byte automaton it becomes.
 *
 * gbnf.c reads text to a tree; grammar.c turns the tree into nodes: every rule is a small automaton over bytes, a
 * reference is a call that pushes where to go on (a pushdown automaton, as in XGrammar: Dong et al., "XGrammar:
 * Flexible and Efficient Structured Generation Engine for Large Language Models", 2024, arXiv:2411.15100). matcher.c
 * runs it: the set of all (node, stack) pairs that fit the text so far is one state of a lazily built deterministic
 * automaton. grammar_vocab.c walks the vocabulary's trie through those states for token masks. */
#ifndef ASH_GRAMMAR_INT_H
#define ASH_GRAMMAR_INT_H

#include "ashlar/grammar.h"
#include "base/base.h"

enum {
    GR_MAX_SOURCE = 4 << 20, /* bytes of GBNF */
    GR_MAX_RULES = 20000,
    GR_MAX_DEPTH = 200,    /* of parentheses */
    GR_MAX_NODES = 400000, /* of the automaton: bounds repetition */
    GR_MAX_REPEAT = 100000,
    GR_MAX_WORK = 50000000 /* steps of the checks */
};
#define GR_INF UINT32_MAX

/* ---- tree ---- */
typedef enum { GX_BYTES, GX_SET, GX_SEQ, GX_ALT, GX_REP, GX_REF } gx_kind;
typedef struct {
    uint32_t lo, hi;
} gx_range; /* code points, both included */
typedef struct gx {
    uint8_t kind;
    uint32_t line;
    struct gx *kid, *next; /* SEQ, ALT, REP: first child; next: its sibling */
    uint32_t min, max;     /* REP; max GR_INF: no limit */
    uint32_t rule;         /* REF */
    ash_str bytes;         /* BYTES */
    gx_range *set;         /* SET: sorted, apart */
    uint32_t n_set;
} gx;
typedef struct {
    ash_str name;
    gx *body;
    uint32_t line;
} gx_rule;
typedef struct {
    ash_arena arena;
    gx_rule *rule;
    uint32_t n, cap, *slot, n_slot;
} gx_tree; /* slot: names by hash, index + 1 */
ash_status ash_gbnf_parse(gx_tree *t, const char *src, size_t n, ash_error *err);
void ash_gbnf_free(gx_tree *t);
/* Index of a rule's name, or -1. */
int64_t ash_gbnf_find(const gx_tree *t, ash_str name);

/* ---- automaton ---- */
typedef enum { GN_RET, GN_RANGE, GN_SPLIT, GN_CALL } gn_kind;
typedef struct {
    uint8_t kind, lo, hi; /* RANGE: bytes, both included */
    uint32_t next;        /* RANGE, CALL: where to go on; SPLIT: one way */
    uint32_t alt;         /* SPLIT: the other; CALL: begin of the rule (its index until all are known) */
} gnode;
struct ash_grammar {
    gnode *node; /* node 0 is RET */
    uint32_t n, start;
    uint8_t cls[256]; /* bytes that no node tells apart share a class */
    uint32_t n_cls;
};

/* ---- vocabulary ---- */
typedef struct {
    uint32_t skip, tok, n_tok;
    uint16_t depth;
    uint8_t byte;
} gr_trie; /* preorder; skip: after the subtree */
typedef struct {
    const ash_vocab *v;
    gr_trie *node;
    uint32_t n;
    ash_token *tok; /* sorted by bytes; those that end at a node: n_tok from tok on */
    char *raw;
    uint32_t *off;             /* [n_vocab + 1] bytes of each token; none for special ones */
    uint32_t max_len, n_words; /* longest token; 64-bit words of a mask */
    ash_token eog[64];
    int n_eog;
} gr_vocab;
ash_status ash_gr_vocab_new(gr_vocab *gv, const ash_vocab *v, ash_error *err);
void ash_gr_vocab_free(gr_vocab *gv);

/* ---- matcher ---- */
enum { GR_SETS = 4096, GR_CONFIGS = 1 << 18, GR_STACK = 1 << 16, GR_SEEN = 1 << 15, GR_MASKS = 64, GR_DEAD = 0 };
#define GR_UNKNOWN UINT32_MAX
typedef struct {
    uint32_t off, n, mask;
    bool accept;
} gr_set; /* configs [off, off + n); mask: slot + 1, 0 none */
typedef struct {
    uint32_t ret, parent;
} gr_frame; /* id 0: the empty stack */
struct ash_matcher {
    const ash_grammar *g;
    gr_vocab gv;
    gr_set *set;                      /* [GR_SETS], 0 is the dead one */
    uint32_t n_set, *next, *set_slot; /* next: [GR_SETS * n_cls] */
    uint64_t *cfg;                    /* [GR_CONFIGS] node << 32 | stack, sorted in each set */
    uint32_t n_cfg;
    gr_frame *frame; /* [GR_STACK] */
    uint32_t n_frame, *frame_slot;
    uint64_t *seen, *work, *out; /* of one closure: [GR_SEEN] */
    uint32_t *epoch, now;
    uint64_t *mask;        /* [GR_MASKS * n_words] */
    uint32_t *owner, hand; /* set of each mask slot; the next one to go */
    uint32_t *path;        /* [max_len + 2] */
    uint32_t cur, begin;   /* set we are in; the first one (rebuilt with the rest) */
    bool full, broken;     /* tables ran full in this step; even empty ones did not do */
};
uint32_t ash_gr_step(ash_matcher *m, uint32_t set, uint8_t byte); /* GR_DEAD also when m->full */
bool ash_gr_flush(ash_matcher *m);                                /* forget all but the current position; false: hopeless (broken) */

#endif
