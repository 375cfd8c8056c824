/* Rows, planes and bits that all operations share, and the operations that only move them. */
#include "plan.h"

#include <string.h>

void finish_row(const operation *o, int channel, float *y, const float *addend, int n) {
    if (o->scale) {
        const float m = o->centre ? o->centre[channel] : 0.0f, a = o->scale[channel], b = o->bias[channel];
        for (int x = 0; x < n; x++) y[x] = (y[x] - m) * a + b;
    }
    if (addend)
        for (int x = 0; x < n; x++) y[x] += addend[x];
    if (o->before)
        for (int x = 0; x < n; x++) y[x] += o->before[channel];
    if (o->slope) {
        const float s = o->slope[channel];
        for (int x = 0; x < n; x++) y[x] = y[x] > 0.0f ? y[x] : y[x] * s;
    }
    if (o->after)
        for (int x = 0; x < n; x++) y[x] += o->after[channel];
}

/* One where a channel's bit lies within a word. */
static uint64_t channel_mask(const value *v, int word) {
    const int left = v->channels / v->parts - 64 * word;
    return left >= 64 ? ~0ull : (1ull << left) - 1;
}

void clear_value(const value *v) {
    if (v->kind == PLANES) {
        memset(v->data, v->fill, (size_t)v->channels * plane_size(v));
        return;
    }
    const int words = words_of(v), n = plane_size(v);
    if (v->border == 0 || v->fill != 1) {
        memset(v->data, 0, 8 * (size_t)words * v->parts * n);
        return;
    }
    for (int p = 0; p < v->parts * words; p++) {
        uint64_t *plane = (uint64_t *)v->data + (size_t)p * n, mask = channel_mask(v, p % words);
        for (int i = 0; i < n; i++) plane[i] = mask;
        for (int y = 0; y < v->height; y++)
            memset((uint64_t *)v->data + inside(v, p) + (size_t)y * row_pitch(v), 0, 8 * (size_t)v->width);
    }
}

void put_bits(const value *v, int channel, int count, size_t pixel, const uint8_t *bits, int n) {
    const int size = v->channels / v->parts, words = words_of(v), within = channel % size;
    if (within % 8 == 0 && (count == 8 || within + count == size) && within + count <= size) {
        const int plane = channel / size * words + within / 64;
        uint8_t *to = (uint8_t *)((uint64_t *)v->data + inside(v, plane) + pixel) + within % 64 / 8;
        for (int x = 0; x < n; x++) to[8 * (size_t)x] = bits[x];
        return;
    }
    for (int j = 0; j < count; j++) {
        const int c = channel + j, bit = c % size;
        uint64_t *to = (uint64_t *)v->data + inside(v, c / size * words + bit / 64) + pixel;
        for (int x = 0; x < n; x++) to[x] |= (uint64_t)(bits[x] >> j & 1) << (bit % 64);
    }
}

void pad_plane(char *target, const char *source, int size, int height, int width, int source_pitch, int padding,
               int stride, const void *fill) {
    const int part = padded_pitch(width, padding, stride), pitch = part * stride;
#define COPY(type)                                                                                               \
    do {                                                                                                         \
        const type empty = fill ? *(const type *)fill : 0;                                                       \
        for (int y = -padding; y < height + padding; y++) {                                                      \
            type *to = (type *)target + (size_t)(y + padding) * pitch;                                           \
            const type *from = (const type *)source + (size_t)(y < 0 ? 0 : y) * source_pitch;                    \
            const int outside = y < 0 || y >= height;                                                            \
            if (stride == 1 && !outside) {                                                                       \
                for (int x = 0; x < padding; x++) to[x] = to[padding + width + x] = empty;                       \
                memcpy(to + padding, from, sizeof(type) * (size_t)width);                                        \
                continue;                                                                                        \
            }                                                                                                    \
            for (int phase = 0; phase < stride; phase++)                                                         \
                for (int i = 0; i < part; i++) {                                                                 \
                    const int x = i * stride + phase - padding;                                                  \
                    to[phase * part + i] = outside || x < 0 || x >= width ? empty : from[x];                     \
                }                                                                                                \
        }                                                                                                        \
    } while (0)
    if (size == 1)
        COPY(int8_t);
    else if (size == 4)
        COPY(float);
    else
        COPY(uint64_t);
#undef COPY
}

void run_channel(packed_plan *plan, const operation *o) {
    (void)plan;
    const int n = plane_size(o->in);
    for (int c = 0; c < o->in->channels; c++) {
        const size_t at = (size_t)c * n;
        float *y = (float *)o->out->data + at;
        const float *addend = o->addend ? (const float *)o->addend->data + at : NULL;
        if (y != (const float *)o->in->data + at) memcpy(y, (const float *)o->in->data + at, sizeof(float) * (size_t)n);
        finish_row(o, c, y, addend, n);
    }
}

void run_copy(packed_plan *plan, const operation *o) {
    (void)plan;
    const size_t n = (size_t)plane_size(o->in);
    memcpy((float *)o->out->data + (size_t)o->row[OFFSET] * n, o->in->data, sizeof(float) * n * o->in->channels);
}

void run_zero(packed_plan *plan, const operation *o) {
    (void)plan;
    memset(o->out->data, 0, sizeof(float) * (size_t)plane_size(o->out) * o->out->channels);
}

/* Drop the first row and column; a row or column that evens an odd size is +1 in words, 0 in a map. */
void run_shift(packed_plan *plan, const operation *o) {
    (void)plan;
    const value *in = o->in, *out = o->out;
    const int words = in->kind == WORDS ? words_of(in) : 1;
    const int planes = in->kind == WORDS ? words * in->parts : in->channels, size = in->kind == WORDS ? 8 : 4;
    for (int p = 0; p < planes; p++) {
        const uint64_t ones = in->kind == WORDS ? channel_mask(in, p % words) : 0;
        for (int y = 0; y < out->height; y++) {
            char *to = (char *)out->data + (size_t)size * (inside(out, p) + (size_t)y * row_pitch(out));
            const int kept = y + 1 < in->height ? in->width - 1 : 0;
            memcpy(to, (const char *)in->data + (size_t)size * (inside(in, p) + (size_t)(y + 1) * row_pitch(in) + 1),
                   (size_t)(size * kept));
            for (int x = kept; x < out->width; x++) memcpy(to + size * x, &ones, (size_t)size);
        }
    }
}
