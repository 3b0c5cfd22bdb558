/* fit_ref.c - the fits and the compensated rounding in plain C, for every machine and as the oracle of the vector copies. */
#define FIT_FN ash_fit_ref
#define COMP_FNS ash_comp_ref
#include "quant/fit.inc"
#include "quant/compensate.inc"
