/* fit_ref.c - the fits in plain C, for every machine and as the oracle of the vector copies. */
#define FIT_FN ash_fit_ref
#include "quant/fit.inc"
