// Who may include whom. The tables below are the rule; docs/ARCHITECTURE.md says why.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <regex>
#include <set>
#include <string>

#include "tests/house/house.h"

namespace acorn::house {
namespace {

using Set = std::set<std::string>;

/// The part of the house that a file belongs to; "" for what no rule binds (tests, benches).
std::string PartOf(const std::string &path) {
  if (StartsWith(path, "schema/")) return "schema";
  if (StartsWith(path, "runtime/api/include/")) return "public";
  if (StartsWith(path, "runtime/")) {
    const size_t begin = std::string("runtime/").size();
    return path.substr(begin, path.find('/', begin) - begin);
  }
  if (path == "tests/ports/conformance.h") return "conformance";
  for (const char *part : {"ports", "programs", "examples", "compiler", "signature"}) {
    if (StartsWith(path, std::string(part) + "/")) return part;
  }
  return "";
}

/// part -> the parts whose headers it may include. Its own headers are always allowed.
const std::map<std::string, Set> &AllowedParts() {
  static const std::map<std::string, Set> allowed = {
      {"schema", {}},
      {"public", {}},
      {"base", {}},
      {"platform", {"schema", "base", "public"}},
      {"kernels", {"schema", "base", "platform"}},
      {"ops", {"schema", "base", "platform", "kernels", "model"}},
      {"model", {"schema", "base"}},
      {"text", {"schema", "base"}},
      {"plan", {"schema", "base", "platform", "kernels", "ops", "model"}},
      {"experts", {"schema", "base", "platform", "kernels", "ops", "model"}},
      {"session", {"schema", "base", "platform", "kernels", "ops", "model", "text", "plan", "experts", "public"}},
      {"api",
       {"schema", "base", "platform", "kernels", "ops", "model", "text", "plan", "experts", "session", "public"}},
      {"conformance", {"public"}},
      {"ports", {"public", "conformance"}},  // the port of a board links the conformance program into its image
      {"signature", {}},
      // `acorn replay` plays traces through the runtime's own cache, `acorn verify` reads graphs with its own reader.
      {"programs", {"schema", "public", "ports", "signature", "base", "experts", "model"}},
      {"examples", {"public", "ports"}},
      // acornc packs with the kernels' layouts, trains on the device's own operators, and checks what it wrote with the runtime's
      // own reader, tokenizer and public interface.
      {"compiler", {"schema", "base", "platform", "kernels", "ops", "model", "text", "public", "ports", "signature"}},
  };
  return allowed;
}

/// Standard and compiler headers that cannot allocate, throw, print or start a thread.
const Set &RuntimeSystemHeaders() {
  static const Set headers = {"cstdint", "cstddef",   "cstring",  "climits",       "limits",
                              "new",     "type_traits", "initializer_list", "immintrin.h", "arm_neon.h",
                              "arm_acle.h", "stdint.h", "stddef.h"};
  return headers;
}

struct Include {
  std::string name;
  bool quoted;
};

bool ParseInclude(const std::string &line, Include *out) {
  static const std::regex pattern("^\\s*#\\s*include\\s*([<\"])([^>\"]+)[>\"]");
  std::smatch match;
  if (!std::regex_search(line, match, pattern)) return false;
  *out = {match[2], match[1] == "\""};
  return true;
}

/// Path from the root of the header that `include` in the file `from` names; "" if it is not ours.
std::string Resolve(const std::string &from, const std::string &include) {
  namespace fs = std::filesystem;
  const fs::path root(ACORN_SOURCE_DIR);
  const std::string folder = fs::path(from).parent_path().generic_string() + "/";
  for (const std::string &base : {folder, std::string("runtime/"), std::string("schema/include/"),
                                  std::string("runtime/api/include/"), std::string("ports/posix/include/"),
                                  std::string("ports/baremetal_aarch64/include/"), std::string("ports/simulated/include/"), std::string("signature/include/"),
                                  std::string("compiler/"), std::string("")}) {
    if (fs::exists(root / (base + include))) return fs::path(base + include).lexically_normal().generic_string();
  }
  return "";
}

bool IsGenerated(const std::string &include) {
  return StartsWith(include, "acorn_schema/") && EndsWith(include, "_generated.h");
}

bool IsRuntimeLayer(const std::string &part) {
  return part == "schema" || part == "public" ||
         (AllowedParts().count(part) != 0 && part != "ports" && part != "programs" && part != "examples" &&
          part != "compiler" && part != "conformance" && part != "signature");
}

TEST(Includes, EveryFolderOfTheRuntimeIsAKnownLayer) {
  for (const File &file : RepositoryFiles()) {
    if (!IsCode(file.path) || !StartsWith(file.path, "runtime/")) continue;
    EXPECT_EQ(AllowedParts().count(PartOf(file.path)), 1u) << file.path;
  }
}

TEST(Includes, PartsIncludeOnlyWhatTheyMay) {
  for (const File &file : RepositoryFiles()) {
    const std::string part = PartOf(file.path);
    if (!IsCode(file.path) || part.empty()) continue;
    const auto rule = AllowedParts().find(part);
    if (rule == AllowedParts().end()) continue;  // said by the test above
    for (size_t i = 0; i < file.lines.size(); ++i) {
      Include include;
      if (!ParseInclude(file.lines[i], &include)) continue;
      const std::string where = file.path + ":" + std::to_string(i + 1) + ": " + include.name;
      if (IsGenerated(include.name)) {
        EXPECT_TRUE(part == "model" || part == "compiler") << where << ": only model/ and compiler/ read the flatbuffer";
        continue;
      }
      const std::string target = Resolve(file.path, include.name);
      if (!include.quoted && target.empty()) continue;  // a system header
      EXPECT_FALSE(target.empty()) << where << ": no such header";
      if (target.empty()) continue;
      const std::string target_part = PartOf(target);
      EXPECT_TRUE(target_part == part || rule->second.count(target_part) != 0)
          << where << ": " << part << " must not include " << (target_part.empty() ? target : target_part);
    }
  }
}

TEST(Includes, RuntimeUsesOnlyHarmlessSystemHeaders) {
  for (const File &file : RepositoryFiles()) {
    const std::string part = PartOf(file.path);
    if (!IsCode(file.path) || !IsRuntimeLayer(part)) continue;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      Include include;
      if (!ParseInclude(file.lines[i], &include) || include.quoted) continue;
      if (part == "model" && StartsWith(include.name, "flatbuffers/")) continue;
      EXPECT_EQ(RuntimeSystemHeaders().count(include.name), 1u)
          << file.path << ":" << i + 1 << ": <" << include.name << "> may allocate, throw, print or start a thread";
    }
  }
}

TEST(Includes, PublicHeadersAreC) {
  const std::regex cpp("\\b(namespace|template|class|constexpr|nullptr|bool)\\b");
  for (const File &file : RepositoryFiles()) {
    if (PartOf(file.path) != "public" || !IsCode(file.path)) continue;
    const std::vector<std::string> lines = WithoutComments(file.lines);
    for (size_t i = 0; i < lines.size(); ++i) {
      EXPECT_FALSE(std::regex_search(lines[i], cpp)) << file.path << ":" << i + 1 << ": " << file.lines[i];
    }
  }
}

}  // namespace
}  // namespace acorn::house
