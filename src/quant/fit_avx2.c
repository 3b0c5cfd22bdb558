/* fit_avx2.c - the fits and the compensated rounding compiled for AVX2: same bits as fit_ref.c. */
#if defined(__AVX2__)
#define FIT_FN ash_fit_avx2
#define COMP_FNS ash_comp_avx2
#include "quant/fit.inc"
#include "quant/compensate.inc"
#endif
