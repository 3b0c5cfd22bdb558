/* constrain.h - the grammar that --grammar and --json-schema ask for. */
#ifndef ASH_CLI_CONSTRAIN_H
#define ASH_CLI_CONSTRAIN_H

#include "ashlar/grammar.h"

/* gbnf: a file; schema: a file or the JSON itself. *g is NULL when neither is given. Keywords that are left out are
 * named on stderr, or an error when strict. */
ash_status cli_constraint(const char *gbnf, const char *schema, bool strict, ash_grammar **g, ash_error *err);

#endif
