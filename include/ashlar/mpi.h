/* ashlar/mpi.h - the processes of an MPI job as ash_ranks. Own library (libashlar_mpi, CMake option ASHLAR_MPI): nothing else sees MPI. */
#ifndef ASHLAR_MPI_H
#define ASHLAR_MPI_H

#include "ashlar/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Join the job this process was started in (mpirun, srun); alone it is a job of one. Once per process, from the thread that will run
 * the work. The ranks wait for each other asleep, not spinning. */
ASH_API ash_status ash_mpi_open(ash_ranks *r, ash_error *err);
/* Leave it. `code` 0 waits for the others; any other ends the whole job with that exit code, as the others may be waiting for this
 * one: it does not return then. Nothing where ash_mpi_open was not called or failed. */
ASH_API void ash_mpi_close(int code);

#ifdef __cplusplus
}
#endif
#endif
