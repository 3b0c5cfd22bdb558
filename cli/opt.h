/* opt.h - inside the command-line framework only (main.c, opt.c, help.c); commands use cli.h. */
#ifndef ASH_CLI_OPT_H
#define ASH_CLI_OPT_H

#include "cli.h"

extern const char *g_verb; /* the verb in messages; "" before it is known */

/* Every verb that is linked in, in the order of commands.inc. */
const ash_cmd *const *cli_commands(int *n);
const ash_cmd *cli_find_command(const char *name);
/* The closest of n names to `s` that is close enough to suggest, or NULL. */
const char *cli_closest(const char *s, const char *const *names, int n);

/* The i-th option of a command, the common ones after its own; false at the end. */
bool opt_at(const ash_cmd *c, int i, opt_def *out);
/* Parse argv (after the verb) into the option table and the common globals; positionals are moved to
 * the front of argv and counted in *n_pos. 0, or the exit code of a usage error. *help: --help was given. */
int opt_parse(const ash_cmd *c, int argc, char **argv, int *n_pos, bool *help);

void help_main(FILE *f);
void help_command(const ash_cmd *c, FILE *f);
int help_man(const char *which);        /* troff on stdout: a verb, or "all" */
int help_completion(const char *shell); /* bash, zsh or fish on stdout */

#endif
