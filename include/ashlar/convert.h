/* ashlar/convert.h - a Hugging Face model folder becomes one GGUF file.
 * Read: config.json, model.safetensors or its shards, tokenizer.json / tokenizer.model / vocab.txt, tokenizer_config.json,
 * special_tokens_map.json, chat_template.jinja / .json, generation_config.json, modules.json. Nothing in them is trusted. */
#ifndef ASHLAR_CONVERT_H
#define ASHLAR_CONVERT_H

#include "ashlar/gguf.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ASH_CONVERT_AUTO = -1 /* matrices keep the type they have (F32, F16 or BF16) */ };

typedef struct {
    int type;         /* ash_dtype of the matrices, or ASH_CONVERT_AUTO; vectors, routers and position tables are F32 */
    const char *name; /* general.name; NULL: the folder's name */
    const char *pre;  /* name of the pre-tokenizer where it is not recognised; NULL: recognise */
    bool vocab_only;  /* write metadata and vocabulary, no tensors; config.json may then be absent */
    const char *base; /* the folder is a LoRA adapter (PEFT) of the model in this folder, of which only config.json is read */
    int n_threads;    /* 0: all usable processors */
    ash_progress progress;
} ash_convert_opts;
ASH_API ash_convert_opts ash_convert_defaults(void);

typedef struct {
    char arch[32], hf_arch[64];  /* "llama", "LlamaForCausalLM" */
    char tokenizer[16], pre[32]; /* tokenizer.ggml.model and .pre; "" where there is none */
    uint64_t n_vocab, n_tensors, n_weights, file_bytes;
    ash_dtype type;   /* of most matrix bytes, as asked or found */
    char notes[1024]; /* what was left out or assumed: sentences, one per line */
} ash_convert_result;

/* Write `out` beside and rename. Every tensor of the folder is used, known to be needless, or an error that names it;
 * every shape is held against config.json. Memory: the mapped shards, one slab of rows, and the vocabulary. r may be NULL. */
ASH_API ash_status ash_convert(ash_convert_result *r, const char *dir, const char *out, const ash_convert_opts *o, ash_error *err);

/* The header of the GGUF that a config.json leads to, without weights (ash_gguf_hollow) and without a vocabulary: what a model is made of, known
 * before it is fetched. Matrices have the type config.json states. */
ASH_API ash_status ash_convert_header(ash_gguf **g, const char *config_json, ash_error *err);
/* i-th architecture that convert knows, as config.json names it; NULL at the end. */
ASH_API const char *ash_convert_arch(int i);
/* i-th pre-tokenizer name for opts.pre; NULL at the end. */
ASH_API const char *ash_convert_pre(int i);

#ifdef __cplusplus
}
#endif
#endif
