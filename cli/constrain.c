/* constrain.c - see constrain.h. */
#include "constrain.h"

#include "cli.h"
#include "opt.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT = 4 << 20 };

ash_status cli_constraint(const char *gbnf, const char *schema, bool strict, ash_grammar **g, ash_error *err) {
    char *text = NULL, *ignored = NULL;
    size_t n = 0;
    ash_status st;
    *g = NULL;
    if (gbnf && schema) return ash_fail(err, ASH_E_USAGE, "--grammar and --json-schema are two ways to say one thing; give one");
    if (gbnf) {
        ASH_TRY(cli_read_file(gbnf, MAX_TEXT, &text, &n, err));
        st = ash_grammar_gbnf(g, text, n, NULL, err);
        free(text);
        return st;
    }
    if (!schema) return ASH_OK;
    if (schema[strspn(schema, " \t\n")] != '{') {
        ASH_TRY(cli_read_file(schema, MAX_TEXT, &text, &n, err));
        schema = text;
    } else
        n = strlen(schema);
    st = ash_grammar_schema(g, schema, n, strict, &ignored, err);
    for (char *p = ignored, *q; st == ASH_OK && p && (q = strchr(p, '\n')); p = q + 1)
        fprintf(stderr, "ashlar %s: warning: schema %.*s (left out)\n", g_verb, (int)(q - p), p);
    ash_text_free(ignored);
    free(text);
    return st;
}
