/* lab_list.h - the one list of experiments. */
#ifndef ASH_LAB_LIST_H
#define ASH_LAB_LIST_H

#include "lab/lab_int.h"

ash_status lab_q2k(lab *l, ash_error *err);
ash_status lab_imatrix(lab *l, ash_error *err);
ash_status lab_coverage(lab *l, ash_error *err);
ash_status lab_q2k_vs_q3k(lab *l, ash_error *err);
ash_status lab_cross_arch(lab *l, ash_error *err);
ash_status lab_swa(lab *l, ash_error *err);
ash_status lab_deswa(lab *l, ash_error *err);
ash_status lab_swa_slice(lab *l, ash_error *err);
ash_status lab_cliff(lab *l, ash_error *err);

#define LAB_EXPERIMENTS(X)                                                                                                                                                  \
    X(lab_q2k, "q2k", "Experiment 1", "Q2_K makes a model hang or collapse; Q3_K_S of the same model is stable.",                                                          \
      "Write the presets Q2_K and Q3_K_S without importance and measure their KL divergence to the source. Reproduced: Q2_K is above 0.8 nats and Q3_K_S below, by the "   \
      "whole interval; refuted: Q2_K is below 0.8.",                                                                                                                        \
      false)                                                                                                                                                                \
    X(lab_imatrix, "imatrix", "Experiment 2", "The importance tool stops at a depth: over half of the tensors never get data (46 % coverage), so types below 3 bits are barred.", \
      "Collect importance and count the matrices that run, not all tensors: vectors cannot have importance, and keys and values of layers that read another's never run. " \
      "Refuted: every matrix that runs has data; reproduced: one that runs has none.",                                                                                      \
      false)                                                                                                                                                                \
    X(lab_coverage, "coverage", "Experiment 5", "More calibration text raises the coverage.",                                                                               \
      "Collect over one chunk and over eight times as many, and compare the sets of matrices with data. Refuted: the sets are equal; reproduced: the second is larger.",    \
      false)                                                                                                                                                                \
    X(lab_q2k_vs_q3k, "q2k-vs-q3k", "Experiments 3 and 4", "There is a floor of quality near 3.4 bits per weight: above it models are stable, below it they collapse.",     \
      "Presets from Q4_K_M down to Q2_K, with importance. Reproduced: Q3_K_S is below 0.8 nats and Q2_K above, by whole intervals, and the step between them is larger than " \
      "tenfold; refuted: Q2_K is below 0.8 or the step is smaller.",                                                                                                        \
      false)                                                                                                                                                                \
    X(lab_cross_arch, "cross-arch", "Experiment 6", "The ratio of feed-forward width to hidden width decides: from 3.0 to 5.5 Q2_K fails, outside it works.",                \
      "Q2_K of every model given (no importance, as published), with its ratio. A model fails above 0.8 nats. Refuted: a prediction is wrong by the whole interval; " \
      "reproduced: at least two models, on both sides of the rule, and all are right.",                                                                                     \
      true)                                                                                                                                                                 \
    X(lab_swa, "swa", "Experiment 7", "Models with sliding-window attention fail at Q2_K, models without it do not.",                                                       \
      "As cross-arch, with windows in place of the ratio.", true)                                                                                                           \
    X(lab_deswa, "deswa", "Experiment 8", "Windows cannot be switched off in the metadata: the patched model does not load.",                                               \
      "Predict the patch's conflicts from shapes; where there are none, write it and measure it. Reproduced: shapes conflict; refuted: the patched model loads.", false)     \
    X(lab_swa_slice, "swa-slice", "Experiment 8b", "The layers without a window are essential: a model of the windowed layers alone is incoherent.",                        \
      "Slice the windowed layers at the source's precision, with the right map of shared keys, and compare with random drops of the same size. Reproduced: the slice is worse "    \
      "than every random drop; refuted: it is better than half of them or more.",                                                                                          \
      false)                                                                                                                                                                \
    X(lab_cliff, "cliff", "Experiment 9, the stability cliff", "Layers are critical or resilient: with one early layer or the last one at Q2_K in a Q3_K_S model it collapses, " \
                                                                "with a zone of late layers it does not change.",                                                          \
      "Q3_K_S as anchor, Q2_K as donor, one layer merged at a time; KL divergence to the source. Reproduced: one layer alone adds more than 0.8 nats while another adds less than 0.05; " \
      "refuted: no layer adds more than 0.8.",                                                                                                                              \
      false)

#endif
