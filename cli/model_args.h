/* model_args.h - arguments that several commands on a model share: lists of token ids, LoRA adapters. */
#ifndef ASH_MODEL_ARGS_H
#define ASH_MODEL_ARGS_H

#include "cli.h"

#include "ashlar/engine.h"

/* "1,2,3": count, or -1 for what is no list of numbers. Ids too large for int32 become -1, which the session refuses.
 * Free *out with free. */
long cli_parse_tokens(const char *s, ash_token **out);

#define CLI_LORA_OPT(list) {OPT_LIST, 0, "lora", "FILE[:SCALE]", "Apply a LoRA adapter (GGUF), at SCALE (default 1); may be repeated.", list}
typedef struct {
    ash_adapter *a[64];
    float scale[64];
    int n;
} cli_loras;
/* Load the adapters named and put them into the session's options; they must live as long as the session. */
ash_status cli_loras_load(cli_loras *l, const opt_list *args, ash_model *m, ash_session_opts *o, ash_error *err);
void cli_loras_free(cli_loras *l);

/* Options of verbs that make a session: types of the KV cache, under our names and llama.cpp's. */
extern const char *g_cache_k, *g_cache_v;
#define CLI_CACHE_OPTIONS                                                                                                          \
    {OPT_STR, 0, "ctk", "TYPE", "Type of the cached keys: f32, f16, q8_0, q4_0 (default: f16, or f32 where all is float32).", &g_cache_k}, \
    {OPT_STR, 0, "ctv", "TYPE", "Type of the cached values.", &g_cache_v},                                                         \
    {OPT_STR, 0, "cache-type-k", "TYPE", "The same as --ctk.", &g_cache_k},                                                        \
    {OPT_STR, 0, "cache-type-v", "TYPE", "The same as --ctv.", &g_cache_v}
/* What they say; a name that is none is an error. */
ash_status cli_cache_types(ash_kv_type *k, ash_kv_type *v, ash_error *err);
/* "Q4_K,IQ4_NL" -> types there is an encoder for, at most `max`; returns how many, -1 after a usage message that names option `opt`. */
int cli_parse_types(const char *opt, const char *s, ash_dtype *t, int max);
/* How weights are kept in memory: run, bench, mem. */
typedef struct {
    bool mlock, populate, huge;
} cli_weights;
#define CLI_WEIGHTS_OPTS(w)                                                                                                                \
    {OPT_FLAG, 0, "mlock", NULL, "Keep the weights in memory; needs a high enough limit of locked memory.", &(w)->mlock},                  \
        {OPT_FLAG, 0, "populate", NULL, "Read all weights in before the first token.", &(w)->populate},                                    \
        {OPT_FLAG, 0, "huge", NULL, "Ask for huge pages for the weights.", &(w)->huge}
ash_status cli_weights_place(const cli_weights *w, ash_model *m, ash_error *err);

#endif
