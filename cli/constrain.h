/* constrain.h - the grammar that --grammar and --json-schema ask for, and what it costs. */
#ifndef ASH_CLI_CONSTRAIN_H
#define ASH_CLI_CONSTRAIN_H

#include "ashlar/engine.h"
#include "ashlar/grammar.h"

/* gbnf: a file; schema: a file or the JSON itself. *g is NULL when neither is given. Keywords that are left out are
 * named on stderr, or an error when strict. */
ash_status cli_constraint(const char *gbnf, const char *schema, bool strict, ash_grammar **g, ash_error *err);
/* bench_grammar.c: n tokens written by the grammar, timed with and without it; prints. */
ash_status cli_bench_grammar(const char *path, ash_model *model, ash_session *s, const ash_grammar *g, int64_t n, int *rc, ash_error *err);

#endif
