/* 1-bit convolutions: words of input channels, XOR with the filters' words, popcount.
 *
 * A bit is 1 for +1. Of b bits that two words share d disagree: the sum of products is b - 2 d. Zero padding lies in the
 * map as words of 0, that is as -1: what it added is the filter's sum over the taps that fall outside, which the
 * tables of corrections hold for each class of rows and of columns. */
#include "plan.h"
#include "popcount.h"

#include <string.h>

#define SUM int16_t
#define NAMED(name) name##_int16
#include "emit.h"

static int is_flat(const operation *o) {
    return o->kernel == 1 && o->stride == 1 && o->padding == 0 && o->in->border == 0;
}

static int bits_of(uint64_t v) {
    int n = 0;
    for (; v; v &= v - 1) n++;
    return n;
}

/* Which taps of an output position lie inside, as bits. */
static uint32_t taps_inside(const operation *o, int position, int size) {
    uint32_t taps = 0;
    for (int k = 0; k < o->kernel; k++) {
        const int at = position * o->stride - o->padding + k * o->dilation;
        if (at >= 0 && at < size) taps |= 1u << k;
    }
    return taps;
}

/* Number the different sets of taps of all positions; class 0 has all. Returns how many there are. */
static int classify(const operation *o, int positions, int size, uint8_t *classes, uint32_t *taps) {
    int count = 1;
    taps[0] = (uint32_t)((1ull << o->kernel) - 1);
    for (int p = 0; p < positions; p++) {
        const uint32_t mine = taps_inside(o, p, size);
        int c = 0;
        while (c < count && taps[c] != mine) c++;
        if (c == count) taps[count++] = mine;
        classes[p] = (uint8_t)c;
    }
    return count;
}

static int prepare_corrections(packed_plan *plan, operation *o, const uint64_t *weights) {
    const int height = o->out->height, width = o->out->width, taps = o->kernel * o->kernel;
    const int words = o->terms / taps, outs = o->out_channels * o->groups;
    uint32_t row_taps[64], column_taps[64];
    o->row_class = plan_memory(plan, (size_t)height);
    o->column_class = plan_memory(plan, (size_t)width);
    o->edges = plan_memory(plan, sizeof(int32_t) * (size_t)width);
    if (!o->row_class || !o->column_class || !o->edges) return -1;
    o->row_classes = classify(o, height, o->in->height, o->row_class, row_taps);
    o->column_classes = classify(o, width, o->in->width, o->column_class, column_taps);
    for (int x = 0; x < width; x++)
        if (o->column_class[x]) o->edges[o->edge_count++] = x;
    const int classes = o->row_classes * o->column_classes;
    o->corrections = plan_memory(plan, sizeof(int16_t) * (size_t)(outs * classes));
    if (!o->corrections) return -1;
    for (int c = 0; c < outs; c++) {
        for (int tap = 0; tap < taps; tap++) {
            int sum = -o->in_channels;
            for (int w = 0; w < words; w++) sum += 2 * bits_of(weights[((size_t)c * taps + tap) * words + w]);
            for (int k = 0; k < classes; k++) {
                const uint32_t rows = row_taps[k / o->column_classes], columns = column_taps[k % o->column_classes];
                if (!((rows >> (tap / o->kernel)) & (columns >> (tap % o->kernel)) & 1))
                    o->corrections[(size_t)c * classes + k] += (int16_t)sum;
            }
        }
    }
    return 0;
}

int prepare_binary(packed_plan *plan, operation *o, const void *source) {
    const uint64_t *weights = source;
    const value *in = o->in;
    const int words = words_of(in), taps = o->kernel * o->kernel, blocks = (o->out_channels + BLOCK - 1) / BLOCK;
    const int s = o->stride, start = in->border - o->padding;
    o->terms = taps * words;
    o->copied = s > 1;
    o->pitch = o->copied ? s * padded_pitch(in->width + 2 * o->padding, 0, s) : row_pitch(in);
    o->plane = o->copied ? o->pitch * (in->height + 2 * o->padding) : plane_size(in);
    o->offsets = plan_memory(plan, sizeof(int32_t) * (size_t)o->terms);
    uint64_t *to = o->weights = plan_memory(plan, 8 * (size_t)(o->groups * blocks * o->terms * BLOCK));
    if (!o->offsets || !to) return -1;
    for (int i = 0; i < o->terms; i++) {
        const int y = i / words / o->kernel * o->dilation, x = i / words % o->kernel * o->dilation;
        const int at = o->copied ? x % s * (o->pitch / s) + x / s : start + x;
        o->offsets[i] = i % words * o->plane + (o->copied ? y : start + y) * o->pitch + at;
    }
    for (int g = 0; g < o->groups; g++)
        for (int c = 0; c < o->out_channels; c++)
            for (int i = 0; i < o->terms; i++)
                to[((size_t)(g * blocks + c / BLOCK) * o->terms + i) * BLOCK + c % BLOCK] =
                    weights[(size_t)(g * o->out_channels + c) * o->terms + i];
    const size_t copy = o->copied ? 8 * (size_t)o->plane * words * o->groups + SLACK : 0;
    if (copy > plan->scratch_bytes) plan->scratch_bytes = copy;
    const int longest = round_up(o->out->width, 8) > TILE ? round_up(o->out->width, 8) : TILE;
    const size_t tile = sizeof(uint16_t) * BLOCK * (size_t)(longest + 8);
    if (tile > plan->tile_bytes) plan->tile_bytes = tile;
    return o->padding && in->fill == 0 ? prepare_corrections(plan, o, weights) : 0;
}

static const uint64_t *source_of(packed_plan *plan, const operation *o) {
    const value *in = o->in;
    if (!o->copied) return in->data;
    const int planes = in->parts * words_of(in), start = (in->border - o->padding) * (row_pitch(in) + 1);
    for (int p = 0; p < planes; p++)
        pad_plane(plan->scratch + 8 * (size_t)p * o->plane,
                  (const char *)((const uint64_t *)in->data + (size_t)p * plane_size(in) + start), 8,
                  in->height + 2 * o->padding, in->width + 2 * o->padding, row_pitch(in), 0, o->stride, NULL);
    return (const uint64_t *)plan->scratch;
}

/* Add what zero padding took away; one row of one channel. */
static void correct(const operation *o, int channel, int y, int16_t *sums) {
    const int16_t *by_column =
        o->corrections + ((size_t)channel * o->row_classes + o->row_class[y]) * o->column_classes;
    if (o->row_class[y])
        for (int x = 0; x < o->out->width; x++) sums[x] += by_column[o->column_class[x]];
    else
        for (int i = 0; i < o->edge_count; i++) sums[o->edges[i]] += by_column[o->column_class[o->edges[i]]];
}

/* Eight channels of a few rows. */
static void run_tile(packed_plan *plan, const operation *o, const uint64_t *source, const uint64_t *weights, int first,
                     int live, int top, int rows) {
    const int width = o->out->width, flat = is_flat(o), row = flat ? width : round_up(width, 8);
    const int n = rows * row, pitch = round_up(n, 8) + 8, bits = o->in_channels * o->kernel * o->kernel;
    uint16_t *counts = (uint16_t *)plan->tile;
    for (int r = 0; r < (flat ? 1 : rows); r++)
        count_block(source + (size_t)(top + r) * o->stride * o->pitch, o->offsets, o->terms, weights,
                    flat ? n : width, counts + r * row, pitch);
    int16_t *sums = (int16_t *)plan->tile;
    for (int j = 0; j < live; j++) {
        for (int x = 0; x < n; x++) sums[j * pitch + x] = (int16_t)(bits - 2 * counts[j * pitch + x]);
        if (o->corrections)
            for (int r = 0; r < rows; r++) correct(o, first + j, top + r, sums + j * pitch + r * row);
    }
    emit_int16(o, first, live, sums, pitch, top, rows, row);
}

void run_binary(packed_plan *plan, const operation *o) {
    const value *in = o->in, *out = o->out;
    const uint64_t *source = source_of(plan, o), *weights = o->weights;
    const int row = is_flat(o) ? out->width : round_up(out->width, 8);
    const int rows = TILE / row > 1 ? TILE / row : 1;
    if (out->kind != MAP) clear_value(out);
    for (int g = 0; g < o->groups; g++) {
        const uint64_t *group = source + (size_t)g * words_of(in) * o->plane;
        for (int c = 0; c < o->out_channels; c += BLOCK, weights += (size_t)o->terms * BLOCK) {
            const int live = o->out_channels - c < BLOCK ? o->out_channels - c : BLOCK;
            for (int y = 0; y < out->height; y += rows)
                run_tile(plan, o, group, weights, g * o->out_channels + c, live, y,
                         out->height - y < rows ? out->height - y : rows);
        }
    }
}
