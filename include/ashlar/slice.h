/* ashlar/slice.h - change a model's shape without changing what it computes.
 *
 * Widening: k- and i-quants hold 256 weights per super-block; rows of 576 or 640 cannot use them. Zero
 * channels make the rows long enough, and the function stays the same:
 *  - RMSNorm over n' = n + zeros sees mean' = mean * n/n', so its weights take sqrt(n/n') and eps takes n/n';
 *  - extra attention heads (whole ones, equally many per KV group) have zero rows in Q and zero columns
 *    in the output projection;
 *  - Q and K norms keep their width but share eps, so Q and K take sqrt(n/n') where such norms exist;
 *  - gemma multiplies embeddings by sqrt(n'), so its table takes sqrt(n/n') and the last norm keeps its weights.
 */
#ifndef ASHLAR_SLICE_H
#define ASHLAR_SLICE_H

#include "ashlar/gguf.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ash_widen ash_widen; /* immutable; the gguf it was made from must outlive it */

/* How g looks with rows that are multiples of `multiple` (2..65536). ASH_E_UNSUPPORTED names the architecture
 * (llama, qwen2, qwen3, gemma3 are known) or the tensor that has no rule. */
ASH_API ash_status ash_widen_new(ash_widen **w, const ash_gguf *g, uint32_t multiple, ash_error *err);
ASH_API void ash_widen_free(ash_widen *w);
/* False when every row already is such a multiple: widening would change nothing. */
ASH_API bool ash_widen_needed(const ash_widen *w);
ASH_API uint32_t ash_widen_n_embd(const ash_widen *w);
ASH_API uint32_t ash_widen_n_head(const ash_widen *w);

/* Everything below takes w == NULL as "not widened", so that callers have one path.
 * Shape of tensor i afterwards; ne[1] of a vector is 1. */
ASH_API void ash_widen_shape(const ash_widen *w, const ash_gguf *g, size_t i, uint64_t ne[ASH_GGUF_MAX_DIMS]);
/* Row `row` (dims above the first flattened) of tensor i as float32 into dst[ne'[0]]; scratch holds ne[0]
 * floats of the source row. False when the source type cannot be decoded. Thread-safe. */
ASH_API bool ash_widen_row(const ash_widen *w, const ash_gguf *g, size_t i, uint64_t row, float *dst, float *scratch);
/* The source row that widened row `row` shows, or -1 for a row of zeros. */
ASH_API int64_t ash_widen_source_row(const ash_widen *w, const ash_gguf *g, size_t i, uint64_t row);
/* From a widened row back to the source's columns and scale. */
ASH_API void ash_widen_crop(const ash_widen *w, const ash_gguf *g, size_t i, const float *wide, float *narrow);
/* Column weights for the widened row: those of the source, and next to nothing for zero columns. */
ASH_API void ash_widen_spread(const ash_widen *w, const ash_gguf *g, size_t i, const float *imp, float *wide);
/* Correct the metadata that widening changes (call after ash_gguf_copy_kv). */
ASH_API ash_status ash_widen_kv(const ash_widen *w, const ash_gguf *g, ash_gguf_writer *out, ash_error *err);

#ifdef __cplusplus
}
#endif
#endif
