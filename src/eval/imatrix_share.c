/* imatrix_share.c - an importance matrix from rank 0 to the other processes of a job: per entry its sizes, name, sums and counts. */
#include "eval/imatrix.h"
#include "eval/ranks.h"

static void write_entries(ash_buf *b, const ash_imatrix *im) {
    for (size_t i = 0; i < im->n; i++) {
        const ash_im_entry *e = &im->e[i];
        const uint64_t head[3] = {strlen(e->name), e->n, e->n_mat};
        ash_buf_add(b, head, sizeof head);
        ash_buf_add(b, e->name, head[0]);
        ash_buf_add(b, e->sum2, e->n * sizeof *e->sum2);
        ash_buf_add(b, e->counts, e->n_mat * sizeof *e->counts);
    }
}

static ash_status read_entry(ash_imatrix *im, ash_rd *r, ash_error *err) {
    ash_status st = ASH_OK;
    uint64_t len = ash_rd_u64(r), n = ash_rd_u64(r), n_mat = ash_rd_u64(r), left = ash_rd_left(r) / sizeof(float);
    if (r->bad || n > left || n_mat > left || n_mat == 0 || n % n_mat)
        return ash_fail(err, ASH_E_INTERNAL, "process 0 sent importance that is not possible");
    const char *name = ash_rd_bytes(r, len);
    const void *sum2 = ash_rd_bytes(r, n * sizeof(float)), *counts = ash_rd_bytes(r, n_mat * sizeof(float));
    if (r->bad) return ash_fail(err, ASH_E_INTERNAL, "process 0 sent importance that ends early");
    float *f = ash_alloc((n + n_mat) * sizeof *f); /* aligned */
    if (!f) return ash_fail(err, ASH_E_NOMEM, "out of memory for the importance matrix");
    memcpy(f, sum2, n * sizeof *f);
    memcpy(f + n, counts, n_mat * sizeof *f);
    st = ash_im_add(im, name, len, n, n_mat, NULL, f, f + n, err);
    ash_free(f);
    return st;
}

ash_status ash_imatrix_share(ash_imatrix **out, const ash_imatrix *im, const ash_ranks *r, ash_error *err) {
    *out = NULL;
    if (ash_ranks_n(r) == 1) return ASH_OK;
    ash_status st = ASH_OK;
    ash_buf b = {0};
    if (r->rank == 0 && im) write_entries(&b, im);
    ASH_TRY_GOTO(ash_ranks_share(r, &b, err), done);
    if (r->rank == 0 || b.n == 0) goto done;
    ash_imatrix *got = ash_calloc(1, sizeof *got);
    if (!got) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for the importance matrix");
        goto done;
    }
    *out = got;
    for (ash_rd rd = ash_rd_init(b.p, b.n); ash_rd_left(&rd);) ASH_TRY_GOTO(read_entry(got, &rd, err), done);
    st = ash_im_finish(got, err);
done:
    if (st != ASH_OK) {
        ash_imatrix_free(*out);
        *out = NULL;
    }
    ash_buf_free(&b);
    return st;
}
