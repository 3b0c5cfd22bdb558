/* eval_task.h - `ashlar eval --task`: the part of cmd_eval.c that scores tasks. */
#ifndef ASH_EVAL_TASK_H
#define ASH_EVAL_TASK_H

#include "ashlar/task.h"

/* Run the task on `model`, and on `other` (NULL: none) for a paired test; print; the exit code. `answers` (NULL: none) gets the
 * generated texts as JSONL. */
int cli_eval_task(const char *model, const char *other, const char *task, const char *answers, const ash_task_opts *o);

#endif
