/* grammar_bench.c - what a grammar costs a token: grammar_bench MODEL.gguf TEXT.json [GRAMMAR.gbnf]. The text is followed
 * token by token with logits that prefer the next one; the draw is timed with and without the grammar, with the default
 * chain (top-k 40) and with top-k off (a full mask every time), first pass (cold) and second. Prints mean and worst. */
#include "ashlar/engine.h"
#include "ashlar/grammar.h"
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>

static const char json[] = "root ::= ws value ws\nvalue ::= object | array | string | number | \"true\" | \"false\" | \"null\"\n"
                           "object ::= \"{\" ws (pair (ws \",\" ws pair)*)? ws \"}\"\npair ::= string ws \":\" ws value\n"
                           "array ::= \"[\" ws (value (ws \",\" ws value)*)? ws \"]\"\n"
                           "string ::= \"\\\"\" ([^\"\\\\\\x00-\\x1f] | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" [0-9a-fA-F]{4}))* \"\\\"\"\n"
                           "number ::= \"-\"? (\"0\" | [1-9] [0-9]*) (\".\" [0-9]+)? ([eE] [+-]? [0-9]+)?\nws ::= [ \\t\\n]*\n";

static int die(const ash_error *e) { return fprintf(stderr, "grammar_bench: %s\n", e->msg), 1; }

int main(int argc, char **argv) {
    ash_error e = {0};
    ash_gguf *g = NULL;
    ash_vocab *v = NULL;
    ash_grammar *gr = NULL;
    ash_matcher *m = NULL;
    ash_buf text = {0}, src = {0};
    if (argc < 3) return fprintf(stderr, "usage: grammar_bench MODEL.gguf TEXT [GRAMMAR.gbnf]\n"), 2;
    if (ash_gguf_open(&g, argv[1], &e) || ash_vocab_load(&v, g, &e) || ash_file_read(argv[2], 1 << 20, &text, &e)) return die(&e);
    if (argc > 3 && ash_file_read(argv[3], 1 << 20, &src, &e)) return die(&e);
    double t0 = ash_now();
    if (ash_grammar_gbnf(&gr, src.p ? src.p : json, src.p ? src.n : sizeof json - 1, NULL, &e)) return die(&e);
    double t1 = ash_now();
    if (ash_matcher_new(&m, gr, v, &e)) return die(&e);
    double t2 = ash_now();
    ash_token *tok;
    size_t n;
    int32_t n_vocab = ash_vocab_size(v);
    if (ash_tokenize(v, text.p, text.n, 0, &tok, &n, &e)) return die(&e);
    printf("vocabulary %d, %zu states, compiled in %.2f ms, matcher made in %.1f ms, %zu tokens of text\n", n_vocab, ash_grammar_states(gr), (t1 - t0) * 1e3, (t2 - t1) * 1e3, n);
    float *logits = malloc((size_t)n_vocab * sizeof *logits);
    ash_rng rng;
    ash_rng_seed(&rng, 1);
    for (int32_t i = 0; i < n_vocab; i++) logits[i] = (float)(ash_rng_f64(&rng) * 10 - 5);
    for (int mode = 0; mode < 6; mode++) {
        bool constrained = mode % 3 != 0;
        ash_sampler_opts o = ash_sampler_defaults(NULL);
        if (mode >= 3) o.top_k = 0, o.min_p = 0.05f;
        o.seed = 1;
        ash_sampler *s;
        if (ash_sampler_new(&s, &o, n_vocab, &e)) return die(&e);
        if (mode % 3 == 1) { /* cold: a new matcher */
            ash_matcher_free(m);
            if (ash_matcher_new(&m, gr, v, &e)) return die(&e);
        }
        ash_matcher_reset(m);
        ash_sampler_constrain(s, constrained ? m : NULL);
        double sum = 0, worst = 0;
        size_t k = 0;
        for (; k < n; k++) {
            float was = logits[tok[k]];
            logits[tok[k]] = 12;
            double a = ash_now();
            ash_token t = ash_sampler_pick(s, logits);
            if (constrained && ash_matcher_accept(m, tok[k], &e)) break;
            double d = ash_now() - a;
            logits[tok[k]] = was;
            (void)t;
            sum += d;
            if (d > worst) worst = d;
        }
        printf("%-9s %-12s mean %8.1f us, worst %8.1f us (%zu tokens)\n", mode < 3 ? "top-k 40" : "top-k off", mode % 3 == 0 ? "free" : mode % 3 == 1 ? "grammar cold" : "grammar warm",
               sum / (double)(k ? k : 1) * 1e6, worst * 1e6, k);
        ash_sampler_free(s);
    }
    free(logits);
    ash_tokens_free(tok);
    ash_matcher_free(m);
    ash_grammar_free(gr);
    ash_vocab_free(v);
    ash_gguf_close(g);
    ash_buf_free(&text);
    ash_buf_free(&src);
    return 0;
}
