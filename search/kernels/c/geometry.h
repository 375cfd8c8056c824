/* Depthwise convolutions that keep the size (2 p = d (k - 1)) at any stride, as sums of shifted vectors.
 *
 * The input of one channel is split into stride x stride phases: phase (a, b) has the rows a, a + s, ... and columns
 * b, b + s, ... . Each is stored with `pad` border entries before each row and rows above and below, so that the
 * border right of a row is that left of the next. Then a tap of the filter is one shift of a phase, and output
 * pixel (i, j) lies at `origin + i * row + j` of a buffer with the same rows.
 */
#ifndef GEOMETRY_H
#define GEOMETRY_H

#include "lanes.h"

#define MAX_TAPS 49
#define MAX_PHASES 4

struct geometry {
    int height, width, out_height, out_width, kernel, stride, dilation, pad, row, taps, phases;
    long origin, length, plane; /* first pixel, pixels from the first to the last, entries of a buffer */
    long shift[MAX_TAPS];
    int phase[MAX_TAPS];
};

static inline int floor_div(int a, int b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

static inline struct geometry make_geometry(int height, int width, int kernel, int stride, int dilation) {
    struct geometry g = {height, width, (height + stride - 1) / stride, (width + stride - 1) / stride,
                         kernel, stride, dilation};
    int before = dilation * (kernel - 1) / 2;
    g.pad = (before + stride - 1) / stride;
    g.row = g.out_width + g.pad;
    g.taps = kernel * kernel;
    g.phases = stride * stride;
    g.origin = (long)g.pad * g.row + g.pad;
    g.length = (long)(g.out_height - 1) * g.row + g.out_width;
    g.plane = round_up((long)(g.out_height + 2 * g.pad) * g.row + g.pad + 4 * 64, 64);
    for (int a = 0; a < kernel; a++)
        for (int b = 0; b < kernel; b++) {
            int y = a * dilation - before, x = b * dilation - before;
            int up = floor_div(y, stride), left = floor_div(x, stride);
            g.shift[a * kernel + b] = (long)up * g.row + left;
            g.phase[a * kernel + b] = (y - up * stride) * stride + (x - left * stride);
        }
    return g;
}

#endif
