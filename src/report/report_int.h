/* report_int.h - escaping, number texts and the charts, shared by the renderings. */
#ifndef ASH_REPORT_INT_H
#define ASH_REPORT_INT_H

#include "ashlar/report.h"
#include "base/base.h"

/* HTML text or attribute: & < > " ' and control characters; broken UTF-8 becomes U+FFFD. */
void ash_rp_esc(ash_buf *b, const char *s);
/* JSON string with quotes; broken UTF-8 becomes U+FFFD. */
void ash_rp_json_str(ash_buf *b, const char *s);
void ash_rp_json_num(ash_buf *b, double v); /* null when not finite */
/* "85.0 MB" */
void ash_rp_bytes(ash_buf *b, uint64_t n);
/* A divergence with sensible digits: 0.0412, 0.00031 */
void ash_rp_kld(ash_buf *b, double v);

/* b's text becomes the caller's, or is freed. */
ash_status ash_rp_hand_over(ash_buf *b, char **out, size_t *n, ash_error *err);

const char *ash_rp_role(int role);    /* "attn_q", ... */
const char *ash_rp_kind(int kind);    /* css class and JSON word */

/* Charts: SVG text into b. */
void ash_rp_plot(ash_buf *b, const ash_report *r);      /* size against divergence */
typedef enum { ASH_RP_X_MB, ASH_RP_X_BPW, ASH_RP_X_BLOCKS } ash_rp_x;
void ash_rp_chart(ash_buf *b, const ash_report *r, ash_rp_x what); /* its inside, 1040 x 440, by one of these sizes */
void ash_rp_heat(ash_buf *b, const ash_report *r);      /* layer x tensor sensitivity */
void ash_rp_recipe(ash_buf *b, const ash_report *r);    /* layer x tensor types */
void ash_rp_bytes_bar(ash_buf *b, const ash_report *r); /* where the bytes went */
void ash_rp_checks(ash_buf *b, const ash_report *r);    /* predicted against measured */
/* Colour of a type by its bits: "#rrggbb". */
const char *ash_rp_type_color(double bpw);

#endif
