/* Pooling: the window's entries in the order of rows, then columns; averages divide by the entries inside the map. */
#include "plan.h"

#include <math.h>
#include <string.h>

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
    return 0;
}

static int inside_window(const operation *o, int position, int size) {
    int count = 0;
    for (int k = 0; k < o->kernel; k++) {
        const int at = position * o->stride - o->padding + k;
        count += at >= 0 && at < size;
    }
    return count;
}

static void pool_row(const operation *o, const float *source, float *y, int n) {
    const int part = o->pitch / o->stride, maximum = o->row[CODE] == OP_MAX, more = o->terms - o->padding;
    for (int ky = 0; ky < o->kernel; ky++)
        for (int kx = 0; kx < o->kernel; kx++) {
            const int at = kx + more;
            const float *x = source + (ky + more) * o->pitch + at % o->stride * part + at / o->stride;
            if (ky == 0 && kx == 0)
                memcpy(y, x, sizeof(float) * (size_t)n);
            else if (maximum)
                for (int i = 0; i < n; i++) y[i] = x[i] > y[i] ? x[i] : y[i];
            else
                for (int i = 0; i < n; i++) y[i] += x[i];
        }
}

void run_pool(packed_plan *plan, const operation *o) {
    const value *in = o->in, *out = o->out;
    const int average = o->row[CODE] == OP_AVERAGE;
    const float empty = average ? 0.0f : -INFINITY;
    const float *copy = (const float *)plan->scratch;
    for (int c = 0; c < in->channels; c++) {
        pad_plane(plan->scratch, (const char *)in->data + sizeof(float) * (size_t)c * plane_size(in), sizeof(float),
                  in->height, in->width, in->width, o->terms, o->stride, &empty);
        for (int y = 0; y < out->height; y++) {
            const size_t at = (size_t)c * plane_size(out) + (size_t)y * out->width;
            float *to = (float *)out->data + at;
            pool_row(o, copy + (size_t)y * o->stride * o->pitch, to, out->width);
            if (average) {
                const int rows = inside_window(o, y, in->height);
                for (int x = 0; x < out->width; x++) to[x] /= (float)(rows * inside_window(o, x, in->width));
            }
            finish_row(o, c, to, o->addend ? (const float *)o->addend->data + at : NULL, out->width);
        }
    }
}
