// ParallelFor: tasks over the machine's cores. Results must not depend on which thread runs a task; callers cut work
// into tasks of a fixed size, so that they do not depend on the number of threads either.
#pragma once

#include <cstdint>
#include <functional>

namespace acorn::compiler {

/// Number of threads that ParallelFor uses, the caller included; at least 1. 0 restores the default (all cores).
int ThreadCount();
void SetThreadCount(int threads);

/// Runs body(task) once for each task in [0, tasks). Returns when all are done. The first exception is rethrown.
/// A body must not call ParallelFor itself.
void ParallelFor(int64_t tasks, const std::function<void(int64_t task)> &body);

}  // namespace acorn::compiler
