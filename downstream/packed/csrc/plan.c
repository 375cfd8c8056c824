/* A plan: sizes of all values, one arena that values share when their lives do not overlap, and the loop. */
#include "plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ALIGNMENT 64
#define FOREVER 0x7fffffff

void *plan_memory(packed_plan *plan, size_t bytes) {
    plan->prepared_bytes += bytes;
    return calloc(1, bytes ? bytes : 1);
}

static const void *tensor(const void *const *tensors, int32_t index) { return index < 0 ? NULL : tensors[index]; }

static int conv_size(const operation *o, int size) {
    const int span = o->dilation * (o->kernel - 1) + 1, room = size + 2 * o->padding - span;
    if (room < 0) return 0;
    int n = room / o->stride + 1;
    if (o->row[CEIL] && room % o->stride) {
        n++;
        if ((n - 1) * o->stride >= size + o->padding) n--; /* no window begins behind the map */
    }
    return n;
}

static int size_after(const operation *o, int size) {
    switch (o->row[CODE]) {
    case OP_BINARY:
    case OP_DEPTHWISE:
    case OP_REAL:
    case OP_MAX:
    case OP_AVERAGE: return conv_size(o, size);
    case OP_SHIFT: return size - 1 + size % 2;
    case OP_MEAN: return 1;
    case OP_ZERO: return (size + o->stride - 1) / o->stride;
    default: return size;
    }
}

static void read_tables(packed_plan *plan, const int32_t *values, const void *const *tensors) {
    for (int i = 0; i < plan->value_count; i++) {
        const int32_t *row = values + (size_t)i * VALUE_COLUMNS;
        value *v = plan->values + i;
        v->kind = row[KIND], v->channels = row[CHANNELS], v->parts = row[PARTS], v->border = row[BORDER];
        v->fill = row[FILL], v->parent = row[PARENT], v->start = row[START], v->first = -1, v->last = -1;
    }
    for (int i = 0; i < plan->count; i++) {
        operation *o = plan->operations + i;
        const int32_t *row = o->row = plan->rows + (size_t)i * COLUMNS;
        o->in = plan->values + row[INPUT], o->out = plan->values + row[OUTPUT];
        o->addend = row[ADDEND] < 0 ? NULL : plan->values + row[ADDEND];
        o->kernel = row[KERNEL], o->stride = row[STRIDE], o->padding = row[PADDING];
        o->dilation = row[DILATION], o->groups = row[GROUPS] > 0 ? row[GROUPS] : 1;
        o->in_channels = o->in->channels / o->groups, o->out_channels = o->out->channels / o->groups;
        o->beta = tensor(tensors, row[BETA]), o->centre = tensor(tensors, row[CENTRE]);
        o->scale = tensor(tensors, row[SCALE]), o->bias = tensor(tensors, row[BIAS]);
        o->before = tensor(tensors, row[BEFORE]), o->slope = tensor(tensors, row[SLOPE]);
        o->after = tensor(tensors, row[AFTER]), o->threshold = tensor(tensors, row[THRESHOLD]);
    }
}

static value *whole(packed_plan *plan, value *v) { return v->parent < 0 ? v : plan->values + v->parent; }

/* What the wanted outputs do not need is skipped; every other value lives from its first to its last operation. */
static int find_lives(packed_plan *plan) {
    char *needed = calloc(1, (size_t)plan->value_count);
    if (!needed) return -1;
    for (int i = 0; i < plan->wanted_count; i++) {
        needed[plan->wanted[i]] = 1;
        whole(plan, plan->values + plan->wanted[i])->last = FOREVER;
    }
    for (int i = plan->count - 1; i >= 0; i--) {
        operation *o = plan->operations + i;
        const int own = (int)(o->out - plan->values), parent = o->out->parent;
        o->skipped = !(needed[own] || (parent >= 0 && needed[parent]));
        if (o->skipped) continue;
        value *reads[2] = {o->in, o->addend};
        for (int k = 0; k < 2; k++) {
            if (!reads[k]) continue;
            needed[reads[k] - plan->values] = 1;
            value *v = whole(plan, reads[k]);
            if (v->last < i) v->last = i;
        }
        value *v = whole(plan, o->out);
        v->first = i;
        if (v->last < i) v->last = i;
    }
    plan->values[0].first = 0;
    free(needed);
    return 0;
}

static int find_sizes(packed_plan *plan, char *message) {
    for (int i = 0; i < plan->count; i++) {
        operation *o = plan->operations + i;
        if (o->skipped) continue;
        const int height = size_after(o, o->in->height), width = size_after(o, o->in->width);
        value *targets[2] = {o->out, whole(plan, o->out)};
        if (height < 1 || width < 1) {
            snprintf(message, 200, "the image is too small: operation %d would give %d x %d", i, height, width);
            return -1;
        }
        if (o->addend && (o->addend->height != height || o->addend->width != width)) {
            snprintf(message, 200, "operation %d adds maps of %d x %d and %d x %d", i, height, width,
                     o->addend->height, o->addend->width);
            return -1;
        }
        for (int k = 0; k < 2; k++) targets[k]->height = height, targets[k]->width = width;
    }
    return 0;
}

static size_t value_bytes(const value *v) {
    const size_t n = (size_t)plane_size(v);
    const size_t content = v->kind == MAP     ? n * v->channels * sizeof(float)
                           : v->kind == WORDS ? n * v->parts * words_of(v) * 8
                                              : n * v->channels;
    return (content + SLACK + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* The lowest place where a value overlaps none that lives at the same time. */
static size_t place(const packed_plan *plan, const value *v) {
    size_t at = 0;
    for (int moved = 1; moved;) {
        moved = 0;
        for (int i = 0; i < plan->value_count; i++) {
            const value *other = plan->values + i;
            if (other == v || !other->bytes || other->parent >= 0 || other->at == (size_t)-1) continue;
            if (other->first > v->last || v->first > other->last) continue;
            if (at < other->at + other->bytes && other->at < at + v->bytes) at = other->at + other->bytes, moved = 1;
        }
    }
    return at;
}

static int place_values(packed_plan *plan) {
    for (int i = 0; i < plan->value_count; i++) plan->values[i].at = (size_t)-1;
    for (int i = 0; i < plan->value_count; i++) {
        value *v = plan->values + i;
        if (v->parent >= 0 || v->last < 0) continue;
        v->bytes = value_bytes(v);
        v->at = place(plan, v);
        if (v->at + v->bytes > plan->arena_bytes) plan->arena_bytes = v->at + v->bytes;
    }
    plan->arena = aligned_alloc(ALIGNMENT, plan->arena_bytes);
    if (!plan->arena) return -1;
    memset(plan->arena, 0, plan->arena_bytes);
    for (int i = 0; i < plan->value_count; i++) {
        value *v = plan->values + i, *base = whole(plan, v);
        if (base->at == (size_t)-1) continue;
        v->data = plan->arena + base->at + (v->parent < 0 ? 0 : sizeof(float) * (size_t)v->start * plane_size(base));
    }
    return 0;
}

static int prepare_operations(packed_plan *plan, const void *const *tensors) {
    for (int i = 0; i < plan->count; i++) {
        operation *o = plan->operations + i;
        if (o->skipped) continue;
        const void *weights = tensor(tensors, o->row[WEIGHT]);
        int failed = 0;
        switch (o->row[CODE]) {
        case OP_BINARY: failed = prepare_binary(plan, o, weights); break;
        case OP_DEPTHWISE: failed = prepare_depthwise(plan, o, weights); break;
        case OP_REAL: failed = prepare_real(plan, o, weights); break;
        case OP_MAX:
        case OP_AVERAGE: failed = prepare_pool(plan, o); break;
        }
        if (failed) return -1;
    }
    plan->scratch = aligned_alloc(ALIGNMENT, (plan->scratch_bytes + SLACK + 63) / 64 * 64);
    plan->tile = aligned_alloc(ALIGNMENT, (plan->tile_bytes + SLACK + 63) / 64 * 64);
    if (!plan->scratch || !plan->tile) return -1;
    memset(plan->scratch, 0, plan->scratch_bytes + SLACK);
    memset(plan->tile, 0, plan->tile_bytes + SLACK);
    return 0;
}

packed_plan *packed_prepare(const int32_t *operations, int count, const int32_t *values, int value_count,
                            const void *const *tensors, const int32_t *wanted, int wanted_count, int height,
                            int width, char *message) {
    packed_plan *plan = calloc(1, sizeof *plan);
    snprintf(message, 200, "not enough memory");
    if (!plan) return NULL;
    plan->count = count, plan->value_count = value_count, plan->wanted_count = wanted_count;
    plan->rows = plan_memory(plan, sizeof(int32_t) * COLUMNS * (size_t)count);
    plan->wanted = plan_memory(plan, sizeof(int32_t) * (size_t)wanted_count);
    plan->operations = plan_memory(plan, sizeof(operation) * (size_t)count);
    plan->values = plan_memory(plan, sizeof(value) * (size_t)value_count);
    if (!plan->rows || !plan->wanted || !plan->operations || !plan->values) goto failed;
    memcpy(plan->rows, operations, sizeof(int32_t) * COLUMNS * (size_t)count);
    memcpy(plan->wanted, wanted, sizeof(int32_t) * (size_t)wanted_count);
    read_tables(plan, values, tensors);
    plan->values[0].height = height, plan->values[0].width = width;
    if (find_lives(plan) || find_sizes(plan, message) || place_values(plan) || prepare_operations(plan, tensors)) goto failed;
    return plan;
failed:
    packed_free(plan);
    return NULL;
}

static void run_operation(packed_plan *plan, const operation *o) {
    switch (o->row[CODE]) {
    case OP_SIGN: run_sign(plan, o); break;
    case OP_SHIFT: run_shift(plan, o); break;
    case OP_BINARY: run_binary(plan, o); break;
    case OP_DEPTHWISE: run_depthwise(plan, o); break;
    case OP_REAL: run_real(plan, o); break;
    case OP_CHANNEL: run_channel(plan, o); break;
    case OP_MAX:
    case OP_AVERAGE: run_pool(plan, o); break;
    case OP_MEAN: run_mean(plan, o); break;
    case OP_COPY: run_copy(plan, o); break;
    case OP_ZERO: run_zero(plan, o); break;
    }
}

static size_t map_entries(const value *v) { return (size_t)v->channels * plane_size(v); }

void packed_run(packed_plan *plan, const float *images, int count, float *const *outputs) {
    const size_t entries = map_entries(plan->values);
    for (int n = 0; n < count; n++) {
        memcpy(plan->values[0].data, images + (size_t)n * entries, sizeof(float) * entries);
        for (int i = 0; i < plan->count; i++)
            if (!plan->operations[i].skipped) run_operation(plan, plan->operations + i);
        for (int i = 0; i < plan->wanted_count; i++) {
            const value *v = plan->values + plan->wanted[i];
            memcpy(outputs[i] + (size_t)n * map_entries(v), v->data, sizeof(float) * map_entries(v));
        }
    }
}

static double processor_time(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void packed_profile(packed_plan *plan, const float *image, double *seconds) {
    memcpy(plan->values[0].data, image, sizeof(float) * map_entries(plan->values));
    for (int i = 0; i < plan->count; i++) {
        const double start = processor_time();
        if (!plan->operations[i].skipped) run_operation(plan, plan->operations + i);
        seconds[i] = processor_time() - start;
    }
}

void packed_repeat(packed_plan *plan, int index, int times) {
    const operation *o = plan->operations + index;
    for (int i = 0; i < times && !o->skipped; i++) run_operation(plan, o);
}

void packed_shape(const packed_plan *plan, int index, int32_t shape[3]) {
    const value *v = plan->values + index;
    const int there = v->data != NULL;
    shape[0] = there ? v->channels : 0, shape[1] = there ? v->height : 0, shape[2] = there ? v->width : 0;
}

size_t packed_bytes(const packed_plan *plan) {
    return plan->arena_bytes + plan->scratch_bytes + plan->tile_bytes + plan->prepared_bytes;
}

void packed_free(packed_plan *plan) {
    if (!plan) return;
    for (int i = 0; plan->operations && i < plan->count; i++) {
        operation *o = plan->operations + i;
        free(o->weights), free(o->offsets), free(o->corrections);
        free(o->row_class), free(o->column_class), free(o->edges);
    }
    free(plan->rows), free(plan->wanted), free(plan->operations), free(plan->values);
    free(plan->arena), free(plan->scratch), free(plan->tile);
    free(plan);
}

const char *packed_variant(void) {
#if defined(__AVX512VPOPCNTDQ__)
    return "AVX-512 VPOPCNTDQ";
#elif defined(__AVX512BW__)
    return "AVX-512";
#elif defined(__AVX2__)
    return "AVX2";
#elif defined(__ARM_NEON)
    return "NEON";
#else
    return "portable";
#endif
}
