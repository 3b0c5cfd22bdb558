/* ashlar/doctor.h - is this file broken, and where: found from the file alone, without the model it was made from.
 *
 * Five kinds of evidence, from cheap to dear: the container (is all of it there), the shapes and hyperparameters (do they make the model),
 * the weights (values, scales, rows and tensors that no healthy file has), how the matrices of one layer fit each other (training leaves
 * marks by which swapped or transposed ones are told), and one forward pass over plain English. What the file alone cannot show is listed
 * in docs/doctor.md. */
#ifndef ASHLAR_DOCTOR_H
#define ASHLAR_DOCTOR_H

#include "ashlar/gguf.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { ASH_DOC_INFO, ASH_DOC_WARN, ASH_DOC_ERROR } ash_doc_severity;

/* The one list of checks: id, severity, whether it needs a forward pass, what it means, what to do. Only errors make a file ill. */
#define ASH_DOCTOR_LIST(X)                                                                                                                                                            \
    X(HEADER, ERROR, 0, "the header cannot be read", "download the file again, or convert it again")                                                                                  \
    X(TRUNCATED, ERROR, 0, "the file ends before its tensors do", "finish the download")                                                                                              \
    X(SHARD, ERROR, 0, "parts of a split model are missing, cut, or not of one set", "get all parts again, into one folder")                                                          \
    X(PART, INFO, 0, "one part of a split model: whether the tensors make the model was not checked", "put the parts together first")                                                 \
    X(BIND, ERROR, 0, "tensors and hyperparameters do not make the model: missing, unknown or of another shape", "convert the model again")                                           \
    X(ARCH, INFO, 0, "the engine does not run this architecture: shapes were not checked", "nothing")                                                                                 \
    X(HPARAM, ERROR, 0, "a hyperparameter is outside of what models have", "set it as in the model's config.json (`ashlar edit`)")                                                    \
    X(NONFINITE, ERROR, 0, "weights or block scales that are NaN or infinite", "download or quantize again")                                                                          \
    X(LARGE, ERROR, 0, "weights larger than any model's", "download or quantize again")                                                                                               \
    X(TINY, ERROR, 0, "weights so small that they are another number format, or noise", "download or convert again")                                                                  \
    X(ZERO_TENSOR, ERROR, 0, "a tensor of zeros only", "download again; if the source has it too, the model is not whole")                                                            \
    X(ZERO_ROWS, ERROR, 0, "rows of zeros inside a matrix", "download again")                                                                                                         \
    X(ZERO_TAIL, WARN, 0, "rows of zeros at a matrix' end (padding, as a rule)", "compare the vocabulary's size with the source's")                                                   \
    X(ZERO_RUN, ERROR, 0, "a run of zeros inside a row: a hole of a download", "download again")                                                                                      \
    X(CONSTANT, ERROR, 0, "a tensor of one value where the other layers' have many", "convert again")                                                                                 \
    X(REPEATED_ROWS, ERROR, 0, "rows of a matrix are the same", "download or convert again")                                                                                          \
    X(REPEATED_TENSOR, ERROR, 0, "two matrices hold the same bytes", "convert or merge again; layers put in twice on purpose are meant to be so")                                     \
    X(REPEATED_PAGES, ERROR, 0, "the same kilobytes stand in two places: a piece of a download went to the wrong one", "download again")                                               \
    X(SCALE_ROWS, ERROR, 0, "rows far larger than their matrix' others", "quantize again")                                                                                            \
    X(SCALE_ROLE, ERROR, 0, "a tensor far larger or smaller than its kind in the other layers", "convert or merge again")                                                             \
    X(SCALE_ABS, ERROR, 0, "a matrix' values are of a size that no model has", "convert again")                                                                                       \
    X(NORM_SIGN, ERROR, 0, "most weights of a norm are negative, unlike in the other layers", "convert again")                                                                        \
    X(ROPE_FACTORS, ERROR, 0, "rope factors that are zero, negative or huge", "convert again")                                                                                        \
    X(SWAPPED, ERROR, 0, "two matrices fit their layers better with places changed", "convert or merge again")                                                                        \
    X(TRANSPOSED, ERROR, 0, "a square matrix fits its layer better when transposed", "convert again")                                                                                 \
    X(MISFIT, ERROR, 0, "matrices of a layer do not fit each other as in the other layers", "convert or merge again")                                                                 \
    X(VOCAB, ERROR, 0, "the vocabulary cannot be used", "convert again")                                                                                                              \
    X(VOCAB_SIZE, ERROR, 0, "the vocabulary and the embedding table differ in size", "convert again with the tokenizer of this model")                                                \
    X(VOCAB_LISTS, ERROR, 0, "token texts, types, scores and merges do not go together", "convert again with the tokenizer of this model")                                            \
    X(VOCAB_TWICE, ERROR, 0, "a token is there twice, or tokens are empty", "convert again with the tokenizer of this model")                                                         \
    X(SPECIAL_ID, ERROR, 0, "a special token's id is outside of the vocabulary", "set the id (`ashlar edit`)")                                                                        \
    X(STOP_TOKEN, ERROR, 0, "the end token is not one that ends a turn: nothing, or the wrong thing, stops the model", "set tokenizer.ggml.eos_token_id (`ashlar edit`)")             \
    X(START_TOKEN, ERROR, 0, "the begin token is an ordinary token", "set tokenizer.ggml.bos_token_id (`ashlar edit`)")                                                               \
    X(NO_VOCAB, INFO, 0, "there is no vocabulary in the file", "nothing, unless text is to go through the model")                                                                     \
    X(TEMPLATE, ERROR, 0, "the chat template cannot be read or does not run", "set tokenizer.chat_template as in the source (`ashlar edit`)")                                         \
    X(TEMPLATE_TEXT, ERROR, 0, "the chat template does not print what is said", "set tokenizer.chat_template as in the source (`ashlar edit`)")                                       \
    X(TEMPLATE_TOKENS, ERROR, 0, "the chat template prints turn markers that the vocabulary lacks: a template of another model", "set the template of this model (`ashlar edit`)")    \
    X(TEMPLATE_TURNS, ERROR, 0, "the vocabulary has turn markers and the chat template prints none: a template of another model", "set the template of this model (`ashlar edit`)")   \
    X(DEAD, INFO, 0, "tensors that no run reads; they need no importance", "nothing; they may take the smallest type")                                                                \
    X(IMPORTANCE, WARN, 0, "matrices of very few bits, made without an importance matrix for all of them", "quantize again with one (`ashlar imatrix`)")                              \
    X(IMATRIX, ERROR, 0, "the importance matrix given does not go with this model, or is broken", "collect it again (`ashlar imatrix`)")                                              \
    X(RUN_NONFINITE, ERROR, 1, "the logits are NaN or infinite", "see the other findings; quantize again")                                                                            \
    X(RUN_FLAT, ERROR, 1, "the model finds plain English as unlikely as noise", "weights, vocabulary or hyperparameters are not of one model: convert again")                         \
    X(RUN_POOR, WARN, 1, "the model finds plain English unlikely (right for a model of another language)", "compare with the source: `ashlar eval --ref`")                            \
    X(RUN_STUCK, ERROR, 1, "greedy text is one token or two over and over", "see the other findings; fewer bits than the model bears do this too")                                    \
    X(RUN_LOOP, INFO, 1, "greedy text repeats itself (small and base models do)", "nothing")

typedef enum {
#define X(id, severity, run, text, advice) ASH_DOC_##id,
    ASH_DOCTOR_LIST(X)
#undef X
    ASH_DOC_COUNT
} ash_doc_check;

typedef struct {
    const char *id;            /* "NONFINITE"; NULL past the end */
    ash_doc_severity severity;
    bool needs_run;
    const char *text, *advice;
} ash_doc_info;
ASH_API ash_doc_info ash_doctor_check(int check); /* 0 .. ASH_DOC_COUNT-1 */

typedef struct {
    ash_doc_check check;
    char where[96];            /* tensor, key or "" */
    char what[280];            /* sentence; bytes of the file may stand in it: not always UTF-8 */
} ash_doc_finding;

typedef struct {
    bool no_run;               /* skip what needs a forward pass */
    const char *imatrix;       /* importance matrix to hold against the model, or NULL */
    int n_threads;             /* 0: all usable */
    ash_progress progress;
} ash_doctor_opts;
ASH_API ash_doctor_opts ash_doctor_defaults(void);

typedef struct ash_doctor ash_doctor; /* an examination that is over; immutable */
/* Reads the whole file once, and the weights that a forward pass needs once more. A broken file is a finding, not a failure: failures are a
 * file (or importance matrix) that cannot be opened, memory, cancelling. At most 1,000 findings are kept. Other parts of a split model are
 * looked for beside the file; only their headers are read. */
ASH_API ash_status ash_doctor_new(ash_doctor **d, const char *path, const ash_doctor_opts *o, ash_error *err);
/* The same over caller-owned bytes; they are needed during the call only. */
ASH_API ash_status ash_doctor_new_mem(ash_doctor **d, const void *p, size_t n, const ash_doctor_opts *o, ash_error *err);
ASH_API void ash_doctor_free(ash_doctor *d); /* NULL is fine */
ASH_API size_t ash_doctor_n(const ash_doctor *d);
ASH_API const ash_doc_finding *ash_doctor_at(const ash_doctor *d, size_t i); /* in the order found; NULL past the end */
ASH_API ash_doc_severity ash_doctor_verdict(const ash_doctor *d);            /* the worst; INFO when there is nothing */
ASH_API bool ash_doctor_ran(const ash_doctor *d);                            /* a forward pass was made */
ASH_API double ash_doctor_nll(const ash_doctor *d);                          /* of its text, nats per token; 0 without a run */

#ifdef __cplusplus
}
#endif
#endif
