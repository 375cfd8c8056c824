"""Kernels in C for training on a CPU, with a rule of arithmetic that gives the same numbers on every machine."""
