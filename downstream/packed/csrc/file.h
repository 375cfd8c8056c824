/* A packed network's file for programs without Python. */
#ifndef PACKED_FILE_H
#define PACKED_FILE_H

#include "packed.h"

typedef struct packed_network packed_network;

/* Read a file that `python -m pipelines.pack` wrote; NULL with a reason in message (200 bytes). The header and the
 * tensors' places are checked, the tables are trusted: Python's downstream.packed.load checks those too. */
packed_network *packed_open(const char *path, char *message);

/* A plan that computes one output ("logits", "embedding", "stride8", ...) of images of height x width; see packed.h.
 * The network must outlive it. */
packed_plan *packed_plan_of(const packed_network *network, const char *output, int height, int width, char *message);

/* The value of an output, for packed_shape; -1 where there is none of this name. */
int packed_output(const packed_network *network, const char *output);

/* Channels of the images. */
int packed_channels(const packed_network *network);

void packed_close(packed_network *network);

#endif
