/* schema_int.h - what the files that turn a JSON schema into GBNF share. */
#ifndef ASH_SCHEMA_INT_H
#define ASH_SCHEMA_INT_H

#include "ashlar/grammar.h"
#include "base/base.h"

#include <jansson.h>

enum { SC_MAX_DEPTH = 100, SC_MAX_TEXT = 4 << 20, SC_MAX_RULES = 15000 };

typedef struct {
    const json_t *root;
    json_t *refs;     /* "#/..." -> name of its rule */
    json_t *own;      /* array that keeps merged schemas alive */
    ash_buf rules;    /* finished rules */
    ash_buf ignored;  /* one a line */
    const char *path; /* JSON pointer of the schema at hand, for messages; owned by the caller's stack */
    uint32_t n_rules, merges;
    int depth;
    bool strict, has_char, has_ws, has_value;
    ash_error *err;
} schema;

ash_status ash_sc_fail(schema *s, ash_status st, const char *fmt, ...) ASH_PRINTF(3, 4);
/* A keyword that is not enforced: an error when strict, else a line of `ignored`. */
ash_status ash_sc_ignore(schema *s, const char *keyword, const char *why);
void ash_sc_chars(schema *s); /* the rule `char`: one character of a JSON string */

/* schema_regex.c: a pattern's GBNF, for the inside of a JSON string. */
ash_status ash_sc_pattern(schema *s, const char *re, size_t n, ash_buf *out);
/* schema_num.c: decimal integers of a range; has_lo, has_hi: which ends exist. */
ash_status ash_sc_integers(schema *s, bool has_lo, int64_t lo, bool has_hi, int64_t hi, ash_buf *out);

#endif
