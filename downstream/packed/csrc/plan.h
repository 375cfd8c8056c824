/* What the operations share: values, prepared operations, the epilogue of a row. */
#ifndef PLAN_H
#define PLAN_H

#include "packed.h"

#define BLOCK 8   /* output channels that are computed together */
#define SLACK 512 /* bytes behind every buffer: the last vector of a row reads and writes beyond it */
#define TILE 512  /* pixels of a tile, where a row has no more */
#define LONGEST_RUN 2048

typedef struct {
    int kind, channels, parts, border, fill, parent, start;
    int height, width;
    int first, last; /* operations between which it lives */
    size_t at, bytes;
    void *data;
} value;

typedef struct {
    const int32_t *row; /* columns, see packed.h */
    value *in, *out, *addend;
    const float *beta, *centre, *scale, *bias, *before, *slope, *after;
    const int16_t *threshold;
    int kernel, stride, padding, dilation, groups;
    int in_channels, out_channels; /* of one group */
    int terms;                     /* products of one output, or words */
    int pitch, plane;              /* of the source that the kernel reads, in elements */
    int copied;                    /* whether that source is a copy in the scratch buffer */
    void *weights;                 /* prepared for the kernel */
    int32_t *offsets;              /* of the terms, from an output's first entry */
    int16_t *corrections;          /* [out][row class][column class] of zero padding */
    uint8_t *row_class, *column_class;
    int row_classes, column_classes;
    int32_t *edges; /* columns of another class than 0 */
    int edge_count;
    int skipped;    /* not needed for what is wanted */
} operation;

struct packed_plan {
    int count, value_count, wanted_count;
    int32_t *rows, *wanted;
    operation *operations;
    value *values;
    char *arena, *scratch, *tile;
    size_t arena_bytes, scratch_bytes, tile_bytes, prepared_bytes;
};

static inline int round_up(int n, int to) { return (n + to - 1) / to * to; }
static inline int row_pitch(const value *v) { return v->width + 2 * v->border; }
static inline int plane_size(const value *v) { return row_pitch(v) * (v->height + 2 * v->border); }
static inline int words_of(const value *v) { return (v->channels / v->parts + 63) / 64; }

/* First entry inside the border of a plane. */
static inline size_t inside(const value *v, int plane) {
    return (size_t)plane * plane_size(v) + (size_t)v->border * row_pitch(v) + v->border;
}

void *plan_memory(packed_plan *plan, size_t bytes);

/* Each returns 0, or -1 when memory is short; they add what they need to scratch_bytes. */
int prepare_binary(packed_plan *plan, operation *o, const void *weights);
int prepare_depthwise(packed_plan *plan, operation *o, const void *weights);
int prepare_real(packed_plan *plan, operation *o, const void *weights);
int prepare_pool(packed_plan *plan, operation *o);

void run_sign(packed_plan *plan, const operation *o);
void run_shift(packed_plan *plan, const operation *o);
void run_binary(packed_plan *plan, const operation *o);
void run_depthwise(packed_plan *plan, const operation *o);
void run_real(packed_plan *plan, const operation *o);
void run_channel(packed_plan *plan, const operation *o);
void run_pool(packed_plan *plan, const operation *o);
void run_mean(packed_plan *plan, const operation *o);
void run_copy(packed_plan *plan, const operation *o);
void run_zero(packed_plan *plan, const operation *o);

/* y = (y - centre) * scale + bias, + addend, + before, PReLU, + after: what the operation has of it, in this order. */
void finish_row(const operation *o, int channel, float *y, const float *addend, int n);

/* Set a WORDS or PLANES value to its fill, before its inside is written. */
void clear_value(const value *v);

/* Set the bit of a channel of a WORDS value, or eight neighbours at once. */
void put_bits(const value *v, int channel, int count, size_t pixel, const uint8_t *bits, int n);

/* Copy planes of elements with a border of fill, columns ordered by their remainder modulo stride. */
void pad_plane(char *target, const char *source, int size, int height, int width, int source_pitch, int padding,
               int stride, const void *fill);
static inline int padded_pitch(int width, int padding, int stride) { return (width + 2 * padding + stride - 1) / stride; }

#endif
