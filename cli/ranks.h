/* ranks.h - commands that several processes can share (mpirun). */
#ifndef ASH_CLI_RANKS_H
#define ASH_CLI_RANKS_H

#include "ashlar/base.h"

/* The processes this one was started with; *r NULL: it is alone. Close gets the exit code and returns it. */
ash_status cli_ranks_open(const ash_ranks **r, ash_error *err);
int cli_ranks_close(int code);

#endif
