// Files for importers that take paths: a folder that a fuzz target writes anew for every input.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "tests/fuzz/fuzz.h"

namespace acorn::fuzz {

class Scratch {
 public:
  Scratch() {
    std::string pattern = (std::filesystem::temp_directory_path() / "acorn_fuzz_XXXXXX").string();
    Require(mkdtemp(pattern.data()) != nullptr, "a folder for files");
    path_ = pattern;
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Scratch(const Scratch &) = delete;
  Scratch &operator=(const Scratch &) = delete;

  const std::string &path() const { return path_; }
  std::string File(const char *name) const { return path_ + "/" + name; }
  /// Writes a file, or takes it away where there are no bytes. Returns its path.
  std::string Write(const char *name, std::string_view bytes) const {
    const std::string path = File(name);
    if (bytes.empty()) {
      std::error_code ignored;
      std::filesystem::remove(path, ignored);
    } else {
      std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    }
    return path;
  }

 private:
  std::string path_;
};

/// The one of this process.
inline const Scratch &TheScratch() {
  static const Scratch scratch;
  return scratch;
}

}  // namespace acorn::fuzz
