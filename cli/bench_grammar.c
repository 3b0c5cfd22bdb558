/* bench_grammar.c - what a grammar costs a token: `ashlar bench --grammar FILE`
 * or `--json-schema`. The model writes a text that keeps to the grammar; at
 * every token the same logits are drawn from with and without it, so both share
 * the same forward passes, and which of the two goes first alternates. Ended
 * texts begin anew. */
#include "constrain.h"

#include "cli.h"

#include "ashlar/text.h"

#include <jansson.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct {
  const char *name;
  int32_t top_k;
  float top_p, min_p;
  int64_t tokens;
  double forward, free, bound,
      worst; /* seconds, of all tokens; worst: most that one draw took longer */
} chain;

static ash_status begin(ash_session *s, ash_token first, ash_matcher *m,
                        ash_error *err) {
  ash_matcher_reset(m);
  ASH_TRY(ash_session_rewind(s, 0, err));
  return ash_session_append(s, first, err);
}

static ash_status follow(chain *c, ash_session *s, const ash_vocab *v,
                         const ash_grammar *g, int64_t n, double *made,
                         ash_error *err) {
  ash_matcher *m = NULL;
  ash_sampler *plain = NULL, *held = NULL;
  ash_sampler_opts o = ash_sampler_defaults(NULL);
  const ash_token first = ash_vocab_bos(v) >= 0 ? ash_vocab_bos(v) : 0;
  o.top_k = c->top_k;
  o.top_p = c->top_p;
  o.min_p = c->min_p;
  o.seed = 1;
  const double t0 = now();
  ash_status st = ash_matcher_new(&m, g, v, err);
  *made = now() - t0;
  if (st == ASH_OK)
    st = ash_sampler_new(&plain, &o, ash_vocab_size(v), err);
  if (st == ASH_OK)
    st = ash_sampler_new(&held, &o, ash_vocab_size(v), err);
  if (st == ASH_OK)
    ash_sampler_constrain(held, m);
  if (st == ASH_OK)
    st = begin(s, first, m, err);
  for (int64_t i = 0; i < n && st == ASH_OK; i++) {
    const float *logits = ash_session_logits(s);
    double plain_s = 0, held_s = 0;
    ash_token t = -1;
    for (int half = 0; half < 2 && st == ASH_OK; half++) {
      const double b = now();
      if ((half ^ (int)(i & 1)) == 0) {
        ash_sampler_pick(plain, logits);
        plain_s = now() - b;
      } else {
        t = ash_sampler_pick(held, logits);
        st =
            t >= 0
                ? ash_matcher_accept(m, t, err)
                : ash_fail(err, ASH_E_FORMAT,
                           "no token of this vocabulary fits the grammar here");
        held_s = now() - b;
      }
    }
    if (st != ASH_OK)
      break;
    c->free += plain_s;
    c->bound += held_s;
    if (held_s - plain_s > c->worst)
      c->worst = held_s - plain_s;
    c->tokens++;
    if (ash_vocab_is_eog(v, t) ||
        ash_session_n_tokens(s) + 1 >= ash_session_n_ctx(s)) {
      st = begin(s, first, m, err);
      c->forward += c->tokens > 1 ? c->forward / (double)(c->tokens - 1)
                                  : 0; /* as an ordinary token */
      continue;
    }
    const double b = now();
    st = ash_session_append(s, t, err);
    c->forward += now() - b;
  }
  ash_sampler_free(plain);
  ash_sampler_free(held);
  ash_matcher_free(m);
  return st;
}

ash_status cli_bench_grammar(const char *path, ash_model *model, ash_session *s,
                             const ash_grammar *g, int64_t n, int *rc,
                             ash_error *err) {
  chain chains[] = {{.name = "top-k 40, top-p, min-p",
                     .top_k = 40,
                     .top_p = 0.95f,
                     .min_p = 0.05f},
                    {.name = "top-p, min-p", .top_p = 0.95f, .min_p = 0.05f},
                    {.name = "no filter", .top_p = 1}};
  ash_vocab *v = NULL;
  json_t *list = json_array();
  double made = 0;
  ASH_TRY(ash_vocab_load(&v, ash_model_gguf(model), err));
  ash_status st = ASH_OK;
  if (!g_json)
    printf("%s: %d words, grammar of %zu states, %lld tokens\n%-24s %12s %12s "
           "%12s %12s %9s\n",
           path, ash_vocab_size(v), ash_grammar_states(g), (long long)n,
           "sampling", "forward us", "free us", "grammar us", "worst +us",
           "cost");
  for (size_t i = 0; i < sizeof chains / sizeof *chains && st == ASH_OK; i++) {
    chain *c = &chains[i];
    if ((st = follow(c, s, v, g, n, &made, err)) != ASH_OK)
      break;
    const double k = c->tokens ? 1e6 / (double)c->tokens : 0,
                 cost = c->tokens
                            ? (c->bound - c->free) / (c->forward + c->free)
                            : 0;
    if (g_json)
      json_array_append_new(
          list, json_pack("{s:s, s:f, s:f, s:f, s:f, s:f}", "sampling", c->name,
                          "forward_us", c->forward * k, "free_us", c->free * k,
                          "grammar_us", c->bound * k, "worst_us",
                          c->worst * 1e6, "cost", cost));
    else
      printf("%-24s %12.1f %12.1f %12.1f %12.1f %+8.2f%%\n", c->name,
             c->forward * k, c->free * k, c->bound * k, c->worst * 1e6,
             100 * cost);
  }
  if (st == ASH_OK && g_json)
    *rc = cli_print_json(
        json_pack("{s:s, s:i, s:I, s:I, s:f, s:O}", "model", path, "n_vocab",
                  (int)ash_vocab_size(v), "grammar_states",
                  (json_int_t)ash_grammar_states(g), "tokens", (json_int_t)n,
                  "matcher_ms", 1e3 * made, "chains", list));
  else if (st == ASH_OK)
    printf("a matcher (the vocabulary sorted for the grammar) is made in %.1f "
           "ms\n",
           1e3 * made);
  json_decref(list);
  ash_vocab_free(v);
  return st;
}
