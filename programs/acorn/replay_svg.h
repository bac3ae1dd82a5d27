// A picture of a replay: the hit rate and the speed of each policy over the size of the cache.
#pragma once

#include <string>
#include <vector>

namespace acorn::program {

struct ReplayCurve {
  std::string name;
  bool dashed;                     // a bound, not a policy
  std::vector<double> hit_rate;    // [sizes] 0 to 1
  std::vector<double> per_second;  // [sizes] tokens
};

struct ReplayPicture {
  std::string title;
  std::vector<double> percent;  // [sizes] of all experts, ascending
  double useful_percent;        // one token's working set; the part below is shaded
  std::vector<ReplayCurve> curves;
};

/// Throws Failure where the file cannot be written; then there is none.
void WriteReplaySvg(const std::string &path, const ReplayPicture &picture);

}  // namespace acorn::program
