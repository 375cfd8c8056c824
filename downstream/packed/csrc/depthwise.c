/* Depthwise 1-bit convolutions: planes of +-1 bytes, added where the filter is +1, subtracted where it is -1.
 *
 * Zero padding is a byte 0, so that it needs no correction. The sums fit into a byte up to 11 x 11 taps. */
#include "plan.h"

#include <string.h>

#define SUM int8_t
#define NAMED(name) name##_int8
#include "emit.h"

#define DEPTHWISE_TILE LONGEST_RUN

typedef int8_t bytes64 __attribute__((vector_size(64), aligned(1)));

static int rows_of(int row) { return DEPTHWISE_TILE / row > 1 ? DEPTHWISE_TILE / row : 1; }

/* Weights in the file: words of a channel's taps. Prepared: for every channel its count of taps of +1, then the
 * offsets of those taps and of the others. */
int prepare_depthwise(packed_plan *plan, operation *o, const void *source) {
    const uint64_t *weights = source;
    const value *in = o->in;
    const int taps = o->kernel * o->kernel, words = (taps + 63) / 64, s = o->stride;
    const int start = in->border - o->padding, channels = in->channels;
    o->copied = s > 1;
    o->terms = taps;
    o->pitch = o->copied ? s * padded_pitch(in->width + 2 * o->padding, 0, s) : row_pitch(in);
    o->plane = o->copied ? o->pitch * (in->height + 2 * o->padding) : plane_size(in);
    int32_t *to = o->offsets = plan_memory(plan, sizeof(int32_t) * (size_t)(channels * (taps + 1)));
    if (!to) return -1;
    for (int c = 0; c < channels; c++, to += taps + 1) {
        int plus = 0, minus = taps;
        for (int i = 0; i < taps; i++) {
            const int y = i / o->kernel * o->dilation, x = i % o->kernel * o->dilation;
            const int at = o->copied ? y * o->pitch + x % s * (o->pitch / s) + x / s : (start + y) * o->pitch + start + x;
            if (weights[(size_t)c * words + i / 64] >> (i % 64) & 1)
                to[1 + plus++] = at;
            else
                to[minus--] = at;
        }
        to[0] = plus;
    }
    const size_t copy = o->copied ? BLOCK * (size_t)o->plane + SLACK : 0;
    if (copy > plan->scratch_bytes) plan->scratch_bytes = copy;
    const int longest = o->pitch > DEPTHWISE_TILE ? o->pitch : DEPTHWISE_TILE;
    const size_t tile = BLOCK * (size_t)(longest + 128);
    if (tile > plan->tile_bytes) plan->tile_bytes = tile;
    return 0;
}

/* Sums of a run of outputs; up to 63 beyond n are written. */
static void add_taps(const int8_t *source, const int32_t *taps, int terms, int n, int8_t *sums) {
    const int plus = taps[0];
    for (int x = 0; x < n; x += 64) {
        bytes64 sum = {0};
        for (int i = 0; i < plus; i++) sum += *(const bytes64 *)(source + taps[1 + i] + x);
        for (int i = plus; i < terms; i++) sum -= *(const bytes64 *)(source + taps[1 + i] + x);
        *(bytes64 *)(sums + x) = sum;
    }
}

/* The planes that a block's kernel reads: those of the input, or copies with columns ordered by their phase. */
static const int8_t *block_source(packed_plan *plan, const operation *o, int first, int live) {
    const value *in = o->in;
    const int8_t *planes = (const int8_t *)in->data + (size_t)first * plane_size(in);
    if (!o->copied) return planes;
    const int start = (in->border - o->padding) * (row_pitch(in) + 1);
    for (int j = 0; j < live; j++)
        pad_plane(plan->scratch + (size_t)j * o->plane, (const char *)planes + (size_t)j * plane_size(in) + start, 1,
                  in->height + 2 * o->padding, in->width + 2 * o->padding, row_pitch(in), 0, o->stride, NULL);
    return (const int8_t *)plan->scratch;
}

void run_depthwise(packed_plan *plan, const operation *o) {
    const value *in = o->in, *out = o->out;
    const int row = o->copied ? out->width : o->pitch, rows = rows_of(row), pitch = round_up(rows * row, 64) + 64;
    int8_t *sums = (int8_t *)plan->tile;
    if (out->kind != MAP) clear_value(out);
    for (int c = 0; c < in->channels; c += BLOCK) {
        const int live = in->channels - c < BLOCK ? in->channels - c : BLOCK;
        const int8_t *planes = block_source(plan, o, c, live);
        for (int y = 0; y < out->height; y += rows) {
            const int some = out->height - y < rows ? out->height - y : rows;
            /* side by side rows are one run; its entries between them are not read */
            const int runs = o->copied ? some : 1, n = o->copied ? out->width : (some - 1) * row + out->width;
            for (int j = 0; j < live; j++)
                for (int r = 0; r < runs; r++)
                    add_taps(planes + (size_t)j * o->plane + (size_t)(y + r) * o->stride * o->pitch,
                             o->offsets + (c + j) * (o->terms + 1), o->terms, n, sums + j * pitch + r * row);
            emit_int8(o, c, live, sums, pitch, y, some, row);
        }
    }
}
