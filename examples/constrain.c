/* constrain.c - grammar.h: an answer that keeps to a JSON schema, whatever the model would rather say.
 * usage: constrain MODEL PROMPT SCHEMA */
#include "example.h"

#include "ashlar/engine.h"
#include "ashlar/grammar.h"

int main(int argc, char **argv) {
    ARGS(3, "MODEL PROMPT SCHEMA");
    ash_model *m;
    OK(ash_model_load(&m, argv[1], &err));
    const ash_vocab *v = ash_model_vocab(m, &err);
    if (!v) OK(err.code);

    ash_grammar *g;
    char *ignored = NULL; /* keywords that no grammar can enforce */
    OK(ash_grammar_schema(&g, argv[3], strlen(argv[3]), false, &ignored, &err));
    if (ignored && *ignored) printf("not enforced: %s\n", ignored);
    ash_matcher *match; /* one position in one text */
    OK(ash_matcher_new(&match, g, v, &err));

    ash_token *prompt;
    size_t n;
    OK(ash_tokenize(v, argv[2], strlen(argv[2]), ASH_TOKENIZE_BOS, &prompt, &n, &err));
    ash_session *s;
    ash_session_opts so = ash_session_defaults();
    so.n_ctx = (uint32_t)n + 256;
    OK(ash_session_new(&s, m, &so, &err));
    OK(ash_session_sync(s, prompt, n, NULL, &err));
    ash_sampler *pick;
    ash_sampler_opts po = ash_sampler_defaults(NULL);
    po.temperature = 0;
    OK(ash_sampler_new(&pick, &po, ash_model_n_vocab(m), &err));
    ash_sampler_constrain(pick, match);

    for (int i = 0; i < 255; i++) {
        const ash_token t = ash_sampler_pick(pick, ash_session_logits(s));
        if (t < 0 || ash_vocab_is_eog(v, t)) break; /* -1: the grammar is at its end */
        char piece[64];
        OK(ash_matcher_accept(match, t, &err));
        const size_t k = ash_token_piece(v, t, false, piece, sizeof piece);
        fwrite(piece, 1, k < sizeof piece ? k : sizeof piece, stdout);
        OK(ash_session_append(s, t, &err));
    }
    printf("\n%s\n", ash_matcher_may_end(match) ? "complete" : "cut off");
    ash_sampler_free(pick);
    ash_session_free(s);
    ash_tokens_free(prompt);
    ash_matcher_free(match);
    ash_grammar_free(g);
    ash_text_free(ignored);
    ash_model_free(m);
}
