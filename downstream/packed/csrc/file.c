/* Safetensors: eight bytes of length, a JSON header, the tensors' bytes. Little-endian machines only, as the format. */
#include "file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE 200
#define LONGEST_HEADER (1u << 28)

struct packed_network {
    char *header, *data;
    size_t data_bytes;
    const int32_t *operations, *values;
    int operation_count, value_count, tensor_count;
    const void **tensors;
    const char *metadata, *metadata_end;
};

/* Past a string that begins at p with its quote; NULL where it does not end. */
static const char *after_string(const char *p, const char *end) {
    for (p++; p < end; p++) {
        if (*p == '\\')
            p++;
        else if (*p == '"')
            return p + 1;
    }
    return NULL;
}

/* Past the value at p: what stands before the comma or brace that ends it. */
static const char *after_value(const char *p, const char *end) {
    int depth = 0;
    while (p && p < end) {
        if (*p == '"') {
            p = after_string(p, end);
            continue;
        }
        if (*p == '{' || *p == '[') depth++;
        if (*p == '}' || *p == ']' || *p == ',') {
            if (depth == 0) return p;
            if (*p != ',') depth--;
        }
        p++;
    }
    return NULL;
}

static const char *find(const char *p, const char *end, const char *text) {
    const size_t n = strlen(text);
    for (; (size_t)(end - p) >= n; p++)
        if (memcmp(p, text, n) == 0) return p + n;
    return NULL;
}

static int take_tensor(packed_network *net, const char *key, size_t key_bytes, const char *value, const char *end) {
    const char *offsets = find(value, end, "\"data_offsets\":["), *shape = find(value, end, "\"shape\":[");
    if (!offsets || !shape) return -1;
    char *next;
    const size_t from = strtoull(offsets, &next, 10), to = *next == ',' ? strtoull(next + 1, NULL, 10) : 0;
    if (from > to || to > net->data_bytes) return -1;
    const void *data = net->data + from;
    if (key_bytes == 10 && memcmp(key, "operations", 10) == 0) {
        net->operations = data, net->operation_count = atoi(shape);
        return (size_t)net->operation_count * COLUMNS * sizeof(int32_t) == to - from ? 0 : -1;
    }
    if (key_bytes == 6 && memcmp(key, "values", 6) == 0) {
        net->values = data, net->value_count = atoi(shape);
        return (size_t)net->value_count * VALUE_COLUMNS * sizeof(int32_t) == to - from ? 0 : -1;
    }
    const long index = strtol(key, NULL, 10);
    if (index < 0 || index >= net->tensor_count) return -1;
    net->tensors[index] = data;
    return 0;
}

/* Walk the header's keys: first only count the tensors, then take them. */
static int read_header(packed_network *net, size_t bytes, int take) {
    const char *p = net->header, *end = p + bytes;
    int count = 0;
    if (*p++ != '{') return -1;
    while (p < end && *p == '"') {
        const char *key = p + 1, *after = after_string(p, end);
        if (!after || after >= end || *after != ':') return -1;
        const size_t key_bytes = (size_t)(after - 1 - key);
        const char *value = after + 1, *next = after_value(value, end);
        if (!next) return -1;
        if (key_bytes == 12 && memcmp(key, "__metadata__", 12) == 0)
            net->metadata = value, net->metadata_end = next;
        else if (take && take_tensor(net, key, key_bytes, value, next))
            return -1;
        else
            count++;
        p = next + 1;
        if (*next == '}') return take ? 0 : count;
    }
    return -1;
}

static int read_file(packed_network *net, FILE *file, char *message) {
    uint64_t bytes = 0;
    snprintf(message, MESSAGE, "it is no packed network");
    if (fread(&bytes, 8, 1, file) != 1 || bytes < 2 || bytes > LONGEST_HEADER) return -1;
    if (fseek(file, 0, SEEK_END)) return -1;
    const long all = ftell(file);
    if (all < 0 || (uint64_t)all < bytes + 8 || fseek(file, 8, SEEK_SET)) return -1;
    net->data_bytes = (size_t)((uint64_t)all - bytes - 8);
    net->header = calloc(1, (size_t)bytes + 1), net->data = malloc(net->data_bytes + 1);
    if (!net->header || !net->data) return -1;
    if (fread(net->header, 1, (size_t)bytes, file) != bytes) return -1;
    if (fread(net->data, 1, net->data_bytes, file) != net->data_bytes) return -1;
    const int count = read_header(net, (size_t)bytes, 0);
    if (count < 3 || !net->metadata) return -1;
    if (!find(net->metadata, net->metadata_end, "\"format\":\"packed-1bit\"")) return -1;
    if (!find(net->metadata, net->metadata_end, "\"version\":\"1\"")) {
        snprintf(message, MESSAGE, "it is of another version than 1");
        return -1;
    }
    net->tensor_count = count - 2;
    net->tensors = calloc((size_t)net->tensor_count, sizeof *net->tensors);
    if (!net->tensors || read_header(net, (size_t)bytes, 1) || !net->operations || !net->values) return -1;
    for (int i = 0; i < net->tensor_count; i++)
        if (!net->tensors[i]) return -1;
    return 0;
}

packed_network *packed_open(const char *path, char *message) {
    FILE *file = fopen(path, "rb");
    if (!file) {
        snprintf(message, MESSAGE, "no such file");
        return NULL;
    }
    packed_network *net = calloc(1, sizeof *net);
    const int failed = !net || read_file(net, file, message);
    fclose(file);
    if (!failed) return net;
    packed_close(net);
    return NULL;
}

int packed_output(const packed_network *net, const char *output) {
    char key[64];
    const char *outputs = find(net->metadata, net->metadata_end, "\"outputs\":\"");
    snprintf(key, sizeof key, "\\\"%s\\\": ", output);
    const char *at = outputs ? find(outputs, after_string(outputs - 1, net->metadata_end), key) : NULL;
    const int value = at ? atoi(at) : -1;
    return value < net->value_count ? value : -1;
}

packed_plan *packed_plan_of(const packed_network *net, const char *output, int height, int width, char *message) {
    const int32_t wanted = packed_output(net, output);
    if (wanted < 0) {
        snprintf(message, MESSAGE, "the network has no output %.32s", output);
        return NULL;
    }
    return packed_prepare(net->operations, net->operation_count, net->values, net->value_count, net->tensors, &wanted,
                          1, height, width, message);
}

int packed_channels(const packed_network *net) { return net->values[CHANNELS]; }

void packed_close(packed_network *net) {
    if (!net) return;
    free(net->header), free(net->data), free(net->tensors), free(net);
}
