/* adapter.h - a LoRA adapter bound to a model: per matrix a low-rank pair whose product is added at run time. */
#ifndef ASH_ADAPTER_INT_H
#define ASH_ADAPTER_INT_H

#include "model/model_int.h"

typedef struct {
    ash_mat a, b;   /* rank x K, rows x rank; data NULL: the matrix is left alone */
    float scale;    /* alpha / rank */
} ash_lora_mat;

struct ash_adapter {
    ash_gguf *gguf;
    ash_model *m;         /* referenced */
    ash_lora_mat *mats;   /* [n_layer][ASH_W_COUNT] */
    ash_lora_mat head;    /* output.weight of an untied model */
    int max_rank;
};

/* From an open file, which the adapter owns from here on, also on failure. */
ash_status ash_adapter_load_gguf(ash_adapter **out, ash_model *m, ash_gguf *g, ash_error *err);

static inline const ash_lora_mat *ash_adapter_mat(const ash_adapter *a, int layer, ash_role role) {
    return &a->mats[(size_t)layer * ASH_W_COUNT + (size_t)role];
}

#endif
