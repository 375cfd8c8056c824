/* Vectors of floats, sums in a fixed order, and loops over threads.
 *
 * Every sum of floats over pixels runs in 16 lanes, whatever the width of the machine's vectors: element i is added
 * to lane i % 16, in order of i, and lanes are combined as a fixed tree in float64. A vector of VW floats holds
 * VW lanes, so that PARTS = 16 / VW vectors make one set of lanes.
 */
#ifndef LANES_H
#define LANES_H

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
#if defined(__AVX512F__)
#define VW 16
#elif defined(__AVX2__)
#define VW 8
#else
#define VW 4
#endif
#define PARTS (LANES / VW)

typedef float vf __attribute__((vector_size(4 * VW)));
typedef float vf_unaligned __attribute__((vector_size(4 * VW), aligned(4), may_alias));
typedef int8_t vb __attribute__((vector_size(4 * VW)));
typedef int8_t vb_unaligned __attribute__((vector_size(4 * VW), aligned(1), may_alias));

static inline vf load(const float *p) { return *(const vf_unaligned *)p; }
static inline void store(float *p, vf v) { *(vf_unaligned *)p = v; }
static inline vb load_bytes(const int8_t *p) { return *(const vb_unaligned *)p; }
static inline void store_bytes(int8_t *p, vb v) { *(vb_unaligned *)p = v; }
static inline vf spread(float x) { return x - (vf){0}; }

/* The sum of 16 lanes: ((0+8)+(4+12)) + ..., in float64. */
static inline double tree(const double *lane) {
    double a[8], b[4];
    for (int i = 0; i < 8; i++) a[i] = lane[i] + lane[i + 8];
    for (int i = 0; i < 4; i++) b[i] = a[i] + a[i + 4];
    return (b[0] + b[2]) + (b[1] + b[3]);
}

static inline double tree_of_floats(const float *lane) {
    double wide[LANES];
    for (int i = 0; i < LANES; i++) wide[i] = lane[i];
    return tree(wide);
}

static inline long minimum(long a, long b) { return a < b ? a : b; }
static inline long maximum(long a, long b) { return a > b ? a : b; }
static inline long round_up(long a, long b) { return (a + b - 1) / b * b; }

/* ---- threads: units of work are taken in any order, so no result may depend on who does which */

typedef void (*unit_function)(long unit, void *context);

struct team {
    unit_function function;
    void *context;
    long units, next;
};

static void *take_units(void *argument) {
    struct team *team = argument;
    for (;;) {
        long unit = __atomic_fetch_add(&team->next, 1, __ATOMIC_RELAXED);
        if (unit >= team->units) return NULL;
        team->function(unit, team->context);
    }
}

static inline void in_parallel(long units, int threads, unit_function function, void *context) {
    struct team team = {function, context, units, 0};
    pthread_t started[64];
    int count = 0;
    int wanted = (int)minimum(minimum(threads, units), 64) - 1;
    while (count < wanted && !pthread_create(&started[count], NULL, take_units, &team)) count++;
    take_units(&team);
    for (int i = 0; i < count; i++) pthread_join(started[i], NULL);
}

static inline void *allocate(size_t bytes) {
    void *p = NULL;
    if (posix_memalign(&p, 64, round_up(bytes + 256, 64))) abort();
    return p;
}

#define EXPORT __attribute__((visibility("default")))

#endif
