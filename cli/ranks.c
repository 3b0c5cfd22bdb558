/* ranks.c - joining the processes that mpirun or srun started. Alone, nothing of MPI is touched. A program without MPI refuses to be one
 * of several: they would all do the whole work and write the same file. */
#include "ranks.h"

#include <stdlib.h>

#ifdef ASHLAR_HAVE_MPI
#include "ashlar/mpi.h"
static ash_ranks g_ranks;
#endif

/* Open MPI's mpirun; MPICH's and its relatives'; whatever speaks PMIx (srun --mpi=pmix). "1": alone. */
static bool started_with_others(void) {
    static const char *const size[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
        const char *n = getenv(size[i]);
        if (n) return atol(n) > 1;
    }
    return getenv("PMIX_RANK") != NULL;
}

ash_status cli_ranks_open(const ash_ranks **r, ash_error *err) {
    *r = NULL;
    if (!started_with_others()) return ASH_OK;
#ifdef ASHLAR_HAVE_MPI
    ASH_TRY(ash_mpi_open(&g_ranks, err));
    if (g_ranks.n > 1) *r = &g_ranks;
    return ASH_OK;
#else
    return ash_fail(err, ASH_E_UNSUPPORTED, "started as one of several processes, but built without MPI (CMake option ASHLAR_MPI)");
#endif
}

int cli_ranks_close(int code) {
#ifdef ASHLAR_HAVE_MPI
    ash_mpi_close(code);
#endif
    return code;
}
