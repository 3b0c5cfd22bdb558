/* ashlar/model.h - a loaded model: hyperparameters and bound tensors over the mapped GGUF. */
#ifndef ASHLAR_MODEL_H
#define ASHLAR_MODEL_H

#include "ashlar/gguf.h"
#include "ashlar/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ash_model ash_model; /* immutable after load; ref-counted; shared by threads */

/* Open, bind and validate (shapes against hyperparameters). Weights stay in the file's mapping.
 * ASH_E_UNSUPPORTED names the architecture or what it is missing. */
ASH_API ash_status ash_model_load(ash_model **m, const char *path, ash_error *err);
ASH_API ash_model *ash_model_ref(ash_model *m);
ASH_API void ash_model_free(ash_model *m); /* drops one reference; NULL is fine */

/* How weights are kept, beyond being mapped: any of these together. Tables of which only rows are looked up (token embedding of an untied
 * model, per-layer embeddings, learned positions) always stay mapped for random access and are left out.
 *   POPULATE  read all pages in now, so that no token waits for the disk
 *   LOCK      keep them in memory (mlock); ASH_E_LIMIT when the limit of locked memory is lower
 *   HUGE      ask for huge pages; ASH_E_UNSUPPORTED where the kernel has none for mapped files */
enum { ASH_WEIGHTS_POPULATE = 1, ASH_WEIGHTS_LOCK = 2, ASH_WEIGHTS_HUGE = 4 };
ASH_API ash_status ash_model_place(ash_model *m, unsigned how, ash_error *err);
/* Bytes of the tensors that are read for every token, and of the lookup tables. */
ASH_API void ash_model_weight_bytes(const ash_model *m, uint64_t *live, uint64_t *lookup);

ASH_API const ash_gguf *ash_model_gguf(const ash_model *m);
/* NULL when the file has no usable tokenizer; `ash_model_vocab_error` says why. Loaded on first use, thread-safe. */
ASH_API const ash_vocab *ash_model_vocab(const ash_model *m, ash_error *err);

ASH_API const char *ash_model_arch(const ash_model *m);
ASH_API int32_t ash_model_n_layer(const ash_model *m);
ASH_API int32_t ash_model_n_embd(const ash_model *m);
ASH_API int32_t ash_model_n_vocab(const ash_model *m);
ASH_API int32_t ash_model_n_ctx_train(const ash_model *m);
ASH_API bool ash_model_tied(const ash_model *m);
/* Whether the model predicts tokens. Encoders (BERT and the like) do not: they make embeddings only. */
ASH_API bool ash_model_generates(const ash_model *m);

/* ---- LoRA adapters (GGUF) ---- */
typedef struct ash_adapter ash_adapter; /* immutable after load; holds a reference to its model */
/* A pair of tensors that has no place in the model is an error that names it. */
ASH_API ash_status ash_adapter_load(ash_adapter **a, ash_model *m, const char *path, ash_error *err);
ASH_API void ash_adapter_free(ash_adapter *a);

#ifdef __cplusplus
}
#endif
#endif
