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

#endif
