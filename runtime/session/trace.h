// The trace: a digest for each step of a model, over everything that the step has written (docs/ARITHMETIC.md §13). Kept where
// the caller asked for it at open; it depends on the tokens alone, not on chunks, threads, kernels or the size of a cache.
#pragma once

#include "session/model.h"

namespace acorn {

/// Every digest as if nothing had run.
void ResetTrace(Model *model);

/// `digest` continued over the rows that `step` has just written in `context`.
uint64_t DigestOutput(uint64_t digest, const Step &step, const RunContext &context);

/// The layer that step `index` of body and head belongs to; −1: before the first or after the last.
int32_t LayerOf(const Graph &graph, size_t index);
/// How many layers there are.
uint32_t LayersOf(const Graph &graph);

/// The operator's name as in schema/acorn.fbs; static.
const char *OpName(OpKind kind);

}  // namespace acorn
