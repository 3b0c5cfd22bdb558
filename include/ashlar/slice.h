/* ashlar/slice.h - change a model's shape: widen it without changing what it computes, keep some of its layers, take
 * layers from another file, change its metadata with the consequences told before.
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

#include "ashlar/model.h"

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

/* ---- sets of layers ----
 * Terms with commas between, read from left to right; "!" before a term takes its layers out again (and a set that begins
 * with one starts from all): 3  10-20  10-  all  swa  full  even  odd  own  shared  first:N  last:N  every:N  random:N
 * ("own": layers with keys and values of their own; "random:N": N layers drawn by the seed.) */
/* `m` may be NULL; then terms that need a model (swa, full, own, shared) are refused. *layers ascending, free with
 * ash_layers_free. Anything that is no set of layers, or an empty one, is ASH_E_USAGE. */
ASH_API ash_status ash_layers_parse(uint32_t **layers, uint32_t *n, const ash_model *m, uint32_t n_layer, const char *rule, uint64_t seed, ash_error *err);
ASH_API void ash_layers_free(uint32_t *layers);

/* ---- slice: a model of some of the layers ---- */
typedef struct {
    uint32_t n_from, n_to;   /* layers */
    uint32_t n_swa, n_full;  /* kept, with and without a window */
    uint32_t n_shared;       /* kept that read another layer's keys and values */
    uint32_t n_retargeted;   /* of these, how many read another layer than before, as theirs is gone */
    uint64_t file_bytes;
    bool tables_f16;         /* per-layer embedding became F16: its blocks span layers */
    char note[240];          /* what other readers will see differently, or "" */
} ash_slice_info;
/* Whether these layers (ascending) make a model: ASH_E_USAGE names the layer that would be left without keys. */
ASH_API ash_status ash_slice_check(const ash_model *m, const uint32_t *layers, uint32_t n, ash_slice_info *info, ash_error *err);
/* n layers at random that pass ash_slice_check, into layers[n]. */
ASH_API ash_status ash_slice_random(const ash_model *m, uint32_t n, uint64_t seed, uint32_t *layers, ash_error *err);
/* Write the slice beside `out` and rename: tensors renumbered and copied, every per-layer array of the metadata, the window
 * pattern, the shared-key count, and the per-layer embedding's columns and projection rows rewritten; the result is loaded
 * and its layers compared with what was meant. All layers give back the file as it was. The layers' old numbers are noted in the
 * metadata, and with `hash` the source's SHA-256. info may be NULL. Memory: one row of a table. */
ASH_API ash_status ash_slice_write(ash_slice_info *info, const ash_model *m, const uint32_t *layers, uint32_t n, const char *out, bool hash,
                                   const ash_progress *progress, ash_error *err);

/* ---- merge: one file's layers in another ---- */
typedef struct {
    size_t n_tensors, n_donor;            /* of the result; taken from the donor */
    uint64_t donor_bytes, file_bytes;
    bool identity;                        /* both files are the same: so is the result */
    char sha_anchor[65], sha_donor[65];
    char note[240];                       /* architecture keys that differ (the anchor's are kept), or "" */
} ash_merge_info;
/* All tensors blk.N.* of the layers from `donor`, everything else from `anchor`, byte for byte, which is compared after
 * writing. Refused: another architecture, layer count, shape or vocabulary, a tensor that only one has. */
ASH_API ash_status ash_merge(ash_merge_info *info, const char *anchor, const char *donor, const uint32_t *layers, uint32_t n, const char *out,
                             const ash_progress *progress, ash_error *err);

/* ---- patch: metadata, with its consequences ---- */
typedef struct {
    const char *out;    /* write here and leave the model as it is; NULL: change the model */
    const char *log;    /* undo log to append to (with out NULL); NULL: none */
    bool dry_run;       /* only say what would happen */
    bool force;         /* write in spite of conflicts */
} ash_patch_opts;
typedef struct {
    size_t n_conflicts;
    char *conflicts;    /* one line each, NUL-terminated; never NULL after success or ASH_E_RANGE for conflicts; owned */
    bool checked;       /* false: the architecture is not known, nothing could be predicted */
    bool written;
} ash_patch_info;
ASH_API void ash_patch_info_free(ash_patch_info *i);
/* KEY=VALUE by the key's type; KEY[3]=V and KEY[*]=V set elements of a numeric or bool array, KEY=[V,V] all of it; new keys as
 * in ash_gguf_edit. Before anything is written, the shapes that the new metadata asks for are compared with the tensors;
 * conflicts without `force` are ASH_E_RANGE. */
ASH_API ash_status ash_patch(ash_patch_info *info, const char *path, const char *const *assignments, size_t n, const ash_patch_opts *o, ash_error *err);
/* Take back the last patch of the log. ASH_E_STATE when the metadata changed since. */
ASH_API ash_status ash_patch_undo(const char *path, const char *log, ash_error *err);

#ifdef __cplusplus
}
#endif
#endif
