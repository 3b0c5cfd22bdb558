/* generate.c - model.h, text.h, engine.h: load a model, go on from a prompt, print as it comes.
 * usage: generate MODEL PROMPT [TOKENS] */
#include "example.h"

#include "ashlar/engine.h"
#include "ashlar/model.h"
#include "ashlar/text.h"

int main(int argc, char **argv) {
    ARGS(2, "MODEL PROMPT [TOKENS]");
    const int most = argc > 3 ? atoi(argv[3]) : 64;
    ash_model *m;
    OK(ash_model_load(&m, argv[1], &err)); /* mapped: nothing is copied */
    const ash_vocab *v = ash_model_vocab(m, &err);
    if (!v) OK(err.code);

    ash_token *prompt;
    size_t n;
    OK(ash_tokenize(v, argv[2], strlen(argv[2]), ASH_TOKENIZE_BOS | ASH_TOKENIZE_SPECIAL, &prompt, &n, &err));

    ash_session *s; /* owns keys, values, logits; all memory is taken here */
    ash_session_opts so = ash_session_defaults();
    so.n_ctx = (uint32_t)(n + (size_t)most);
    OK(ash_session_new(&s, m, &so, &err));
    OK(ash_session_sync(s, prompt, n, NULL, &err)); /* the timeline is now the prompt */

    ash_sampler *pick;
    ash_sampler_opts po = ash_sampler_defaults(ash_model_gguf(m)); /* what the file recommends */
    po.seed = 1;
    OK(ash_sampler_new(&pick, &po, ash_model_n_vocab(m), &err));

    ash_detok *d; /* holds back half a character */
    OK(ash_detok_new(&d, v, false, &err));
    for (int i = 0; i < most; i++) {
        const ash_token t = ash_sampler_pick(pick, ash_session_logits(s));
        if (ash_vocab_is_eog(v, t)) break;
        ash_sampler_accept(pick, t);
        ash_str text;
        OK(ash_detok_next(d, t, &text, &err));
        fwrite(text.p, 1, text.n, stdout);
        fflush(stdout);
        if (i + 1 < most) OK(ash_session_append(s, t, &err));
    }
    const ash_str rest = ash_detok_flush(d);
    printf("%.*s\n%zu tokens in the timeline, %llu bytes of session\n", (int)rest.n, rest.p, ash_session_n_tokens(s),
           (unsigned long long)ash_session_bytes(s));
    ash_detok_free(d);
    ash_sampler_free(pick);
    ash_session_free(s);
    ash_tokens_free(prompt);
    ash_model_free(m);
}
