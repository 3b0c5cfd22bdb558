/* ashlar/assess.h - what a model is made of and what will come of it, from a GGUF, a GGUF's header or a config.json: facts per layer, the exact size
 * of every stock recipe, memory, a published rule of thumb with its score, a prediction from the weights, and what fits a machine. */
#ifndef ASHLAR_ASSESS_H
#define ASHLAR_ASSESS_H

#include "ashlar/engine.h"
#include "ashlar/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ash_assess ash_assess;

typedef struct {
    bool importance;           /* recipes as made with an importance matrix */
    bool predict;              /* encode samples of the weights (seconds); needs weights */
    ash_importance weights;    /* for the prediction; zeroed: none */
    ash_session_opts session;  /* for memory: context, batch, cache types */
    uint64_t ram;              /* bytes there are for the run; 0: what ash_ram_read says */
    int n_threads;             /* 0: all usable */
    ash_progress progress;
} ash_assess_opts;
ASH_API ash_assess_opts ash_assess_defaults(void);

/* `path` is a GGUF, also one that ends anywhere after its header, a config.json, or a folder with one. */
ASH_API ash_status ash_assess_new(ash_assess **a, const char *path, const ash_assess_opts *o, ash_error *err);
ASH_API void ash_assess_free(ash_assess *a);

/* ---- facts ---- */
enum { ASH_WINDOW_UNKNOWN = -1 };
typedef struct {
    int64_t n_ff;              /* feed-forward width; of one expert where there is no dense part; 0: none */
    double ffn_ratio;          /* n_ff / n_embd */
    int64_t n_head, n_head_kv, head_dim; /* 0: unknown */
    int64_t window;            /* 0: full attention; ASH_WINDOW_UNKNOWN */
    int64_t kv_layer;          /* layer whose keys and values are read; -1: unknown */
    bool experts;
    uint64_t n_weights;
    uint64_t dead_weights;     /* of tensors that no run reads */
} ash_layer_facts;

typedef struct {
    const char *name, *arch;   /* borrowed */
    bool runs;                 /* ashlar's engine runs the architecture; else window and kv_layer are unknown */
    const char *why_not;       /* sentence; "" */
    bool from_config, has_weights;
    uint64_t file_bytes, lost_bytes; /* lost: cut off at the end; both 0 for a config.json */
    int64_t n_layer, n_embd, n_vocab, n_ctx_train, n_expert, n_expert_used;
    bool tied;
    uint64_t n_tensors, n_weights;
    uint64_t embd_weights;     /* all tables indexed by token: embeddings, per-layer embeddings, a head of its own */
    uint64_t lookup_weights;   /* of them, only looked up in */
    size_t n_dead;             /* tensors that no run reads */
    uint64_t dead_weights;
    double ffn_ratio;          /* as a config.json says it: the first layer's, or an expert's */
    double ffn_ratio_min, ffn_ratio_max, ffn_ratio_mean; /* over layers; the mean weighted by feed-forward weights */
    int64_t n_window, n_full;  /* layers by attention */
    uint64_t tensor_bytes;     /* as the file stores them */
} ash_model_facts;
ASH_API const ash_model_facts *ash_assess_facts(const ash_assess *a);
ASH_API const ash_layer_facts *ash_assess_layers(const ash_assess *a); /* n_layer of them */
/* i-th tensor that no run reads; NULL at the end. */
ASH_API const char *ash_assess_dead(const ash_assess *a, size_t i);

/* ---- stock recipes: one per preset, in the order of ash_preset_name ---- */
typedef struct {
    const char *name;          /* "Q4_K_M" */
    bool possible, general;    /* general: ash_preset_general */
    uint64_t tensor_bytes;     /* exact, without alignment: what llama-quantize prints as its size */
    uint64_t file_bytes;       /* exact for a GGUF; from a config.json without the vocabulary */
    size_t n_stand_in;         /* matrices whose rows do not fit the recipe's type */
    double bpw, bpw_blocks, bpw_live; /* whole file; matrices of the blocks; tensors that every token reads */
    uint64_t resident;         /* of a run at the session's context; 0: unknown */
    bool fits;                 /* resident within the memory there is */
    bool predicted;
    double kld, kld_lo, kld_hi; /* against the source, nats per token; interval: 80 % */
} ash_assess_recipe;
ASH_API size_t ash_assess_n_recipes(const ash_assess *a);
ASH_API const ash_assess_recipe *ash_assess_recipe_at(const ash_assess *a, size_t i);
/* Memory of the file as it is. false: unknown (the engine does not run it). */
ASH_API bool ash_assess_mem(const ash_assess *a, ash_mem *mem);

/* ---- advice ---- */
enum { ASH_ADVICE_MAX = 3 };
typedef struct {
    uint64_t ram, budget;      /* there is; for the run: without what the system keeps */
    uint32_t n_ctx;
    int n_fit;                 /* largest recipes that fit, best first: indices into the recipes */
    size_t fit[ASH_ADVICE_MAX];
    int n_ladder;              /* when the first fails to load or is too slow, the next ones: each at least 8 % smaller */
    size_t ladder[8];
    bool known;                /* false: memory is unknown */
} ash_assess_advice;
ASH_API ash_assess_advice ash_assess_advise(const ash_assess *a);

/* ---- the FFN-ratio rule, as published (r = intermediate_size / hidden_size). A hypothesis: see its score. ---- */
typedef enum { ASH_RULE_FAILS, ASH_RULE_WORKS, ASH_RULE_UNDECIDED } ash_rule_says;
typedef struct {
    ash_rule_says q2k;
    double confidence;         /* as published; 0: none was given */
    const char *primary, *fallback, *risk; /* recipes and risk it recommends; "" where a form says none */
    const char *reason;        /* sentence */
} ash_rule;
enum { ASH_RULE_FORMS = 3 };   /* 0: ratio; 1: ratio and windowed attention; 2: ratio, windows, depth */
ASH_API ash_rule ash_ffn_rule(int form, double ratio, double window_share);

/* Real models with published outcomes at low bits: data/models.csv. */
typedef struct {
    char name[48], kind[8];    /* kind: "ppl" measured, "probe" one prompt */
    char type[16];             /* recipe of the outcome */
    char ref[16];              /* what ppl_ref was measured on */
    int64_t n_embd, n_ff;
    double window_share;       /* of layers with windowed attention */
    double bpw;                /* of the file, 0: not published */
    double ppl, ppl_ref;       /* 0 for probes */
    char outcome[16];          /* probes: "pass", "fail", "timeout" */
    char source[160], quote[200];
} ash_known_model;
typedef struct { ash_known_model *row; size_t n; } ash_known_models;
ASH_API ash_status ash_known_models_parse(ash_known_models *k, const char *text, size_t n, const char *name, ash_error *err);
ASH_API ash_status ash_known_models_load(ash_known_models *k, const char *path, ash_error *err);
ASH_API void ash_known_models_free(ash_known_models *k);

/* How often a form of the rule was right on the measured rows: right where it says "works" and ppl / ppl_ref < limit, or "fails" and not. */
typedef struct {
    int n, right, undecided, works; /* works: rows that did, i.e. what always saying "works" scores */
    double lo, hi;             /* 95 % (Wilson) of right / n */
} ash_rule_score;
ASH_API ash_rule_score ash_ffn_rule_score(int form, const ash_known_models *k, double limit);

#ifdef __cplusplus
}
#endif
#endif
