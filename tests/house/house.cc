#include "tests/house/house.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace acorn::house {
namespace {

namespace fs = std::filesystem;

bool IsText(const fs::path &path) {
  if (StartsWith(path.filename().string(), ".")) return false;
  static const std::vector<std::string> extensions = {".cc", ".h",  ".c",    ".inc",  ".txt", ".cmake", ".sh",
                                                      ".md", ".fbs", ".json", ".yml", ".py",  ".in",    ".csv"};
  const std::string extension = path.extension().string();
  return extension.empty() || std::find(extensions.begin(), extensions.end(), extension) != extensions.end();
}

bool IsSkippedFolder(const fs::path &path) {
  const std::string name = path.filename().string();
  return name == "build" || (StartsWith(name, ".") && name != ".ci") || name == "__pycache__" ||
         fs::exists(path / "CMakeCache.txt");
}

std::vector<File> ReadAll() {
  const fs::path root(ACORN_SOURCE_DIR);
  std::vector<File> files;
  for (auto it = fs::recursive_directory_iterator(root); it != fs::recursive_directory_iterator(); ++it) {
    if (it->is_directory()) {
      if (IsSkippedFolder(it->path())) it.disable_recursion_pending();
      continue;
    }
    if (!it->is_regular_file() || !IsText(it->path())) continue;
    File file;
    file.path = fs::relative(it->path(), root).generic_string();
    std::ifstream in(it->path());
    for (std::string line; std::getline(in, line);) file.lines.push_back(line);
    files.push_back(std::move(file));
  }
  std::sort(files.begin(), files.end(), [](const File &a, const File &b) { return a.path < b.path; });
  return files;
}

}  // namespace

const std::vector<File> &RepositoryFiles() {
  static const std::vector<File> files = ReadAll();
  return files;
}

std::vector<std::string> WithoutComments(const std::vector<std::string> &lines) {
  std::vector<std::string> result;
  bool in_block = false;
  for (const std::string &line : lines) {
    std::string kept;
    char quote = 0;
    for (size_t i = 0; i < line.size(); ++i) {
      const char c = line[i];
      const char next = i + 1 < line.size() ? line[i + 1] : '\0';
      if (in_block) {
        if (c == '*' && next == '/') {
          in_block = false;
          ++i;
        }
        continue;
      }
      if (quote != 0) {
        if (c == '\\') {
          ++i;
        } else if (c == quote) {
          quote = 0;
          kept += c;
        }
        continue;
      }
      if (c == '/' && next == '/') break;
      if (c == '/' && next == '*') {
        in_block = true;
        ++i;
        continue;
      }
      // A ' between digits separates them; it opens no literal.
      const bool separator = c == '\'' && i > 0 && isxdigit(static_cast<unsigned char>(line[i - 1])) != 0;
      if ((c == '"' || c == '\'') && !separator) quote = c;
      kept += c;
    }
    result.push_back(kept);
  }
  return result;
}

bool StartsWith(const std::string &text, const std::string &prefix) { return text.compare(0, prefix.size(), prefix) == 0; }

bool EndsWith(const std::string &text, const std::string &suffix) {
  return text.size() >= suffix.size() && text.compare(text.size() - suffix.size(), suffix.size(), suffix) == 0;
}

bool IsCode(const std::string &path) {
  return EndsWith(path, ".cc") || EndsWith(path, ".h") || EndsWith(path, ".c") || EndsWith(path, ".inc");
}

}  // namespace acorn::house
