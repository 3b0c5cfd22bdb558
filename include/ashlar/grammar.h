/* ashlar/grammar.h - output that keeps to a grammar: GBNF (the notation of llama.cpp) or a JSON schema.
 *
 *   ash_grammar *g;  ash_matcher *m;
 *   ash_grammar_gbnf(&g, "root ::= \"yes\" | \"no\"", 22, NULL, &err);
 *   ash_matcher_new(&m, g, vocab, &err);
 *   ash_sampler_constrain(sampler, m);            // engine.h: pick() draws among the tokens that fit
 *   ... t = ash_sampler_pick(sampler, logits);  ash_matcher_accept(m, t, &err);
 *
 * A grammar is immutable and may be shared by threads; a matcher is one position in one text. All memory of a matcher
 * is taken when it is made. docs/formats/grammar.md lists the notation and the schema keywords. */
#ifndef ASHLAR_GRAMMAR_H
#define ASHLAR_GRAMMAR_H

#include "ashlar/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ash_grammar ash_grammar;
/* root: name of the first rule, NULL: "root". ASH_E_FORMAT with line, ASH_E_LIMIT for a grammar that unrolls too far. */
ASH_API ash_status ash_grammar_gbnf(ash_grammar **g, const char *src, size_t n, const char *root, ash_error *err);
/* A JSON schema as text. `strict`: a keyword that cannot be enforced is an error; else it is left out and named in
 * *ignored (one a line, may be NULL; free with ash_text_free). What comes out fits the schema but for those. */
ASH_API ash_status ash_grammar_schema(ash_grammar **g, const char *schema, size_t n, bool strict, char **ignored, ash_error *err);
/* The GBNF that ash_grammar_schema compiles; free with ash_text_free. */
ASH_API ash_status ash_schema_to_gbnf(const char *schema, size_t n, bool strict, char **gbnf, char **ignored, ash_error *err);
ASH_API void ash_grammar_free(ash_grammar *g);
ASH_API size_t ash_grammar_states(const ash_grammar *g); /* size of the compiled automaton */

typedef struct ash_matcher ash_matcher;
/* v may be NULL: then only text is matched. Both must outlive the matcher. */
ASH_API ash_status ash_matcher_new(ash_matcher **m, const ash_grammar *g, const ash_vocab *v, ash_error *err);
ASH_API void ash_matcher_free(ash_matcher *m);
ASH_API void ash_matcher_reset(ash_matcher *m);
/* Go on by some bytes. False: they do not fit (or ash_matcher_error is set); nothing fits then until a reset. */
ASH_API bool ash_matcher_text(ash_matcher *m, const char *p, size_t n);
ASH_API bool ash_matcher_may_end(const ash_matcher *m);
ASH_API bool ash_matcher_allows(ash_matcher *m, ash_token t); /* end-of-generation tokens: where the text may end */
ASH_API ash_status ash_matcher_accept(ash_matcher *m, ash_token t, ash_error *err); /* ASH_E_FORMAT: does not fit */
/* One bit per token, lowest first, 1: allowed; borrowed until the next call. NULL on ash_matcher_error.
 * `cached`: only if it is at hand already. */
ASH_API const uint64_t *ash_matcher_mask(ash_matcher *m, bool cached);
/* ASH_E_LIMIT once a state was too ambiguous to follow; ASH_OK else. */
ASH_API ash_status ash_matcher_error(const ash_matcher *m, ash_error *err);

#ifdef __cplusplus
}
#endif
#endif
