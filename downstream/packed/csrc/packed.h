/* A packed 1-bit network: a list of operations on maps, run image by image in one arena (docs/packed.md).
 *
 * A program is three tables of int32 and a list of tensors, all of which the file holds. Python (ctypes) and the
 * command-line runner use the same functions. One plan serves one thread; plans share the tensors.
 */
#ifndef PACKED_H
#define PACKED_H

#include <stddef.h>
#include <stdint.h>

/* Kinds of maps. Rows are contiguous, then planes, then channels (or words, or groups of words). */
enum { MAP = 0, WORDS = 1, PLANES = 2 };

/* What an operation does; the columns that it reads stand beside it in operations.py. */
enum {
    OP_SIGN = 1,       /* map -> words or planes: (x - centre) * scale + bias >= 0 */
    OP_SHIFT = 2,      /* map or words without the first row and column; odd sizes get one back at the end */
    OP_BINARY = 3,     /* words -> any kind: XOR and popcount */
    OP_DEPTHWISE = 4,  /* planes -> any kind: sums of +-1 */
    OP_REAL = 5,       /* map -> map: float convolution; OFFSET 1: its weights are words of bits */
    OP_CHANNEL = 6,    /* map -> map: only the epilogue */
    OP_MAX = 7,        /* map -> map: max pooling */
    OP_AVERAGE = 8,    /* map -> map: average over the entries inside the map */
    OP_MEAN = 9,       /* map -> map of one pixel: global average */
    OP_COPY = 10,      /* map -> channels of a map from OFFSET on */
    OP_ZERO = 11       /* zeros of the size of the input over the stride */
};

enum {
    CODE, OUTPUT, INPUT, ADDEND, KERNEL, STRIDE, PADDING, DILATION, GROUPS, CEIL, OFFSET,
    WEIGHT, BETA, SCALE, BIAS, BEFORE, SLOPE, AFTER, THRESHOLD, CENTRE, COLUMNS
};

/* Columns of the table of values. */
enum { KIND, CHANNELS, PARTS, BORDER, FILL, PARENT, START, VALUE_COLUMNS = 8 };

typedef struct packed_plan packed_plan;

/* Prepare a program for images of height x width.
 *
 * operations: count x COLUMNS; values: value_count x VALUE_COLUMNS, value 0 is the image; tensors: what the columns
 * from WEIGHT on index, -1 for none; wanted: wanted_count values that are outputs. The pointers must outlive the plan,
 * the tables need not. Returns NULL, with a reason in message (200 bytes), where the size does not fit or memory is
 * short. No function below allocates.
 */
packed_plan *packed_prepare(const int32_t *operations, int count, const int32_t *values, int value_count,
                            const void *const *tensors, const int32_t *wanted, int wanted_count, int height,
                            int width, char *message);

/* Run images of (count, channels, height, width); outputs[i] gets count maps of the i-th wanted value. */
void packed_run(packed_plan *plan, const float *images, int count, float *const *outputs);

/* As packed_run on one image; seconds gets the processor time of every operation. */
void packed_profile(packed_plan *plan, const float *image, double *seconds);

/* Run one operation again and again on whatever its buffers hold: for benchmarks of single layers. */
void packed_repeat(packed_plan *plan, int operation, int times);

/* Channels, height and width of a value; zeros where it is not computed for the wanted outputs. */
void packed_shape(const packed_plan *plan, int value, int32_t shape[3]);

/* Bytes of the arena, prepared weights and tables included. */
size_t packed_bytes(const packed_plan *plan);

void packed_free(packed_plan *plan);

/* The instruction set that this library was compiled for. */
const char *packed_variant(void);

#endif
