/* Pooling: the window's entries in the order of rows, then columns; averages divide by the entries inside the map. */
#include "plan.h"

#include <math.h>
#include <string.h>

typedef float floats16 __attribute__((vector_size(64), aligned(4)));
typedef int32_t ints16 __attribute__((vector_size(64)));
#define LANES 16

/* Entries of a window that lie inside the map. */
static int inside_window(const operation *o, int position, int size) {
    int count = 0;
    for (int k = 0; k < o->kernel; k++) {
        const int at = position * o->stride - o->padding + k;
        count += at >= 0 && at < size;
    }
    return count;
}

int prepare_pool(packed_plan *plan, operation *o) {
    const value *in = o->in, *out = o->out;
    const int s = o->stride;
    /* what a last window of ceil_mode reads beyond the padding */
    const int beyond_y = (out->height - 1) * s + o->kernel - (in->height + 2 * o->padding);
    const int beyond_x = (out->width - 1) * s + o->kernel - (in->width + 2 * o->padding);
    const int beyond = beyond_y > beyond_x ? beyond_y : beyond_x;
    o->terms = o->padding + (beyond > 0 ? beyond : 0); /* border of the copy */
    o->pitch = s * padded_pitch(in->width, o->terms, s);
    const size_t copy = sizeof(float) * (size_t)o->pitch * (in->height + 2 * o->terms) + SLACK;
    if (copy > plan->scratch_bytes) plan->scratch_bytes = copy;
    const size_t row = sizeof(float) * (size_t)(out->width + LANES);
    if (row > plan->tile_bytes) plan->tile_bytes = row;
    float *columns = o->weights = plan_memory(plan, sizeof(float) * (size_t)out->width);
    if (!columns) return -1;
    for (int x = 0; x < out->width; x++) columns[x] = (float)inside_window(o, x, in->width);
    return 0;
}

/* The larger of each pair; the first where one is no number, as a comparison has it. */
static inline floats16 larger(floats16 a, floats16 b) {
    const ints16 mask = b > a;
    return (floats16)(((ints16)b & mask) | ((ints16)a & ~mask));
}

/* A row of sums or maxima; up to 15 beyond n are written. */
static void pool_row(const operation *o, const float *source, float *y, int n) {
    const int part = o->pitch / o->stride, maximum = o->row[CODE] == OP_MAX, more = o->terms - o->padding;
    for (int x = 0; x < n; x += LANES) {
        floats16 total = {0};
        for (int ky = 0; ky < o->kernel; ky++)
            for (int kx = 0; kx < o->kernel; kx++) {
                const int at = kx + more;
                const float *from = source + (ky + more) * o->pitch + at % o->stride * part + at / o->stride + x;
                const floats16 v = *(const floats16 *)from;
                total = ky + kx == 0 ? v : maximum ? larger(total, v) : total + v;
            }
        *(floats16 *)(y + x) = total;
    }
}

void run_pool(packed_plan *plan, const operation *o) {
    const value *in = o->in, *out = o->out;
    const int average = o->row[CODE] == OP_AVERAGE;
    const float empty = average ? 0.0f : -INFINITY;
    const float *copy = (const float *)plan->scratch, *columns = o->weights;
    float *row = (float *)plan->tile;
    for (int c = 0; c < in->channels; c++) {
        pad_plane(plan->scratch, (const char *)in->data + sizeof(float) * (size_t)c * plane_size(in), sizeof(float),
                  in->height, in->width, in->width, o->terms, o->stride, &empty);
        for (int y = 0; y < out->height; y++) {
            const size_t at = (size_t)c * plane_size(out) + (size_t)y * out->width;
            pool_row(o, copy + (size_t)y * o->stride * o->pitch, row, out->width);
            if (average) {
                const float rows = (float)inside_window(o, y, in->height);
                for (int x = 0; x < out->width; x++) row[x] /= rows * columns[x];
            }
            finish_row(o, c, row, o->addend ? (const float *)o->addend->data + at : NULL, out->width);
            memcpy((float *)out->data + at, row, sizeof(float) * (size_t)out->width);
        }
    }
}
