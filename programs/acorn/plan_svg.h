// A picture of a memory plan: one bar for each class, all to the same scale.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace acorn::program {

struct PlanClass {
  const char *name, *what;
  uint64_t bytes;
};

/// Throws Failure where the file cannot be written; then there is none.
void WritePlanSvg(const std::string &path, const std::string &title, const std::vector<PlanClass> &classes);

}  // namespace acorn::program
