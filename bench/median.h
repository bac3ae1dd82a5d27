/* For the benches in C. */
#pragma once

#include <stdlib.h>

static int Ascending(const void *a, const void *b) {
  const double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

/* Sorts them; of an even number the upper one of the two in the middle.  count: 1 and up */
static inline double Median(double *values, int count) {
  qsort(values, (size_t)count, sizeof *values, Ascending);
  return values[count / 2];
}
