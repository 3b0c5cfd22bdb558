/* ranks.h - what several processes at one job (ash_ranks) say to each other beside results. With NULL, or one process, all of these do
 * nothing and succeed. */
#ifndef ASH_EVAL_RANKS_H
#define ASH_EVAL_RANKS_H

#include "base/base.h"

static inline int ash_ranks_n(const ash_ranks *r) { return r ? r->n : 1; }
static inline bool ash_ranks_first(const ash_ranks *r) { return !r || r->rank == 0; }
/* n bytes of each, in rank order. */
ash_status ash_ranks_gather_same(const ash_ranks *r, const void *mine, size_t n, void *all, ash_error *err);
/* How each fares: ASH_OK when all do well; st where this one fails; else the failure of the first that does, with its sentence. */
ash_status ash_ranks_agree(const ash_ranks *r, ash_status st, ash_error *err);
/* Rank 0's bytes for everybody; what others have in b is dropped. */
ash_status ash_ranks_share(const ash_ranks *r, ash_buf *b, ash_error *err);

#endif
