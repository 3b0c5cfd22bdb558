/* ranks.c - meetings of several processes: how each fares, and what rank 0 has to say. All on one operation, gather. */
#include "eval/ranks.h"

ash_status ash_ranks_gather_same(const ash_ranks *r, const void *mine, size_t n, void *all, ash_error *err) {
    if (ash_ranks_n(r) == 1) {
        memcpy(all, mine, n);
        return ASH_OK;
    }
    uint64_t *sizes = ash_calloc((size_t)r->n, sizeof *sizes);
    if (!sizes) return ash_fail(err, ASH_E_NOMEM, "out of memory for %d processes", r->n);
    for (int i = 0; i < r->n; i++) sizes[i] = n;
    ash_status st = r->gather(r->ctx, mine, sizes, all, err);
    ash_free(sizes);
    return st;
}

typedef struct {
    int32_t st;
    char msg[sizeof(((ash_error *)0)->msg)];
} state;

ash_status ash_ranks_agree(const ash_ranks *r, ash_status st, ash_error *err) {
    if (ash_ranks_n(r) == 1) return st;
    state me = {.st = st}, *all = ash_calloc((size_t)r->n, sizeof *all);
    if (!all) return st != ASH_OK ? st : ash_fail(err, ASH_E_NOMEM, "out of memory for %d processes", r->n);
    if (st != ASH_OK) memcpy(me.msg, err ? err->msg : "", err ? sizeof me.msg : 1);
    ash_status met = ash_ranks_gather_same(r, &me, sizeof me, all, st == ASH_OK ? err : NULL);
    if (st == ASH_OK) st = met;
    for (int i = 0; st == ASH_OK && i < r->n; i++)
        if (all[i].st != ASH_OK) {
            all[i].msg[sizeof all[i].msg - 1] = 0;
            st = ash_fail(err, (ash_status)all[i].st, "process %d: %s", i, all[i].msg);
        }
    ash_free(all);
    return st;
}

ash_status ash_ranks_share(const ash_ranks *r, ash_buf *b, ash_error *err) {
    const int n = ash_ranks_n(r);
    if (n == 1) return ASH_OK;
    ash_status st = ASH_OK;
    uint64_t *sizes = ash_calloc((size_t)n, sizeof *sizes), mine = r->rank == 0 ? b->n : 0;
    char *got = NULL;
    if (!sizes)
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for %d processes", n);
    else if (r->rank == 0 && !ash_buf_ok(b))
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for what all processes are to know");
    ASH_TRY_GOTO(ash_ranks_agree(r, st, err), done);
    ASH_TRY_GOTO(ash_ranks_gather_same(r, &mine, sizeof mine, sizes, err), done);
    if (sizes[0] == 0) {
        ash_buf_reset(b);
        goto done;
    }
    got = ash_alloc(sizes[0]);
    if (!got) st = ash_fail(err, ASH_E_NOMEM, "out of memory for %llu bytes of process 0", (unsigned long long)sizes[0]);
    ASH_TRY_GOTO(ash_ranks_agree(r, st, err), done);
    ASH_TRY_GOTO(r->gather(r->ctx, b->p, sizes, got, err), done);
    if (r->rank != 0) {
        ash_buf_reset(b);
        ash_buf_add(b, got, sizes[0]);
        if (!ash_buf_ok(b)) st = ash_fail(err, ASH_E_NOMEM, "out of memory for what process 0 sent");
    }
done:
    ash_free(sizes);
    ash_free(got);
    return st;
}
