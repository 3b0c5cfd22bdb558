/* ranks_mpi.c - ash_ranks over MPI: the only file that sees it. Waiting is by polling with sleeps in between, as MPI's own waiting
 * keeps a processor busy that another rank on the same machine could use. */
#include "ashlar/mpi.h"
#include "base/base.h"

#include <limits.h>
#include <mpi.h>
#include <time.h>

static bool g_open;

static void nap(long ns) {
    struct timespec t = {.tv_nsec = ns};
    nanosleep(&t, NULL);
}

static ash_status fail(ash_error *err, const char *what, int rc) {
    char why[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    MPI_Error_string(rc, why, &n);
    return ash_fail(err, ASH_E_IO, "MPI cannot %s: %s", what, why);
}

static ash_status gather(void *ctx, const void *mine, const uint64_t *sizes, void *all, ash_error *err) {
    const ash_ranks *r = ctx;
    ash_status st = ASH_OK;
    int rc, done = 0, *n = ash_calloc(2 * (size_t)r->n, sizeof *n), *at = n ? n + r->n : NULL;
    uint64_t total = 0;
    char none[1];
    if (!n) return ash_fail(err, ASH_E_NOMEM, "out of memory for %d processes", r->n);
    for (int i = 0; i < r->n; i++) {
        at[i] = (int)total;
        n[i] = (int)sizes[i];
        if (ash_add_ovf(total, sizes[i], &total) || total > INT_MAX) {
            st = ash_fail(err, ASH_E_LIMIT, "more than 2 GB would go between processes at once");
            goto done;
        }
    }
    MPI_Request req;
    rc = MPI_Iallgatherv(n[r->rank] ? mine : none, n[r->rank], MPI_BYTE, total ? all : none, n, at, MPI_BYTE, MPI_COMM_WORLD, &req);
    for (long ns = 20000; rc == MPI_SUCCESS;) {
        rc = MPI_Test(&req, &done, MPI_STATUS_IGNORE);
        if (done) break;
        nap(ns);
        ns = ASH_MIN(ns + ns / 4, 5000000L);
    }
    if (rc != MPI_SUCCESS) st = fail(err, "pass data between processes", rc);
done:
    ash_free(n);
    return st;
}

ash_status ash_mpi_open(ash_ranks *r, ash_error *err) {
    int level, rc = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level);
    if (rc != MPI_SUCCESS) return fail(err, "start", rc);
    g_open = true;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    *r = (ash_ranks){.gather = gather, .ctx = r};
    rc = MPI_Comm_rank(MPI_COMM_WORLD, &r->rank);
    if (rc == MPI_SUCCESS) rc = MPI_Comm_size(MPI_COMM_WORLD, &r->n);
    if (rc != MPI_SUCCESS) return fail(err, "tell how many processes there are", rc);
    if (level < MPI_THREAD_FUNNELED) return ash_fail(err, ASH_E_UNSUPPORTED, "this MPI does not allow a process to have threads");
    return ASH_OK;
}

void ash_mpi_close(int code) {
    if (!g_open) return;
    g_open = false;
    if (code == 0) {
        MPI_Finalize();
        return;
    }
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    for (int i = 0; rank > 0 && i < 4; i++) nap(250000000L); /* rank 0 has something to say, too */
    MPI_Abort(MPI_COMM_WORLD, code);
}
