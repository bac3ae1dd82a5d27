// MappedFile: a whole file, read-only, in memory for as long as the object lives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace acorn::compiler {

class MappedFile {
 public:
  /// Throws Error(kIo) when the file cannot be opened or mapped. An empty file is legal and has size 0.
  explicit MappedFile(const std::string &path);
  ~MappedFile();
  MappedFile(const MappedFile &) = delete;
  MappedFile &operator=(const MappedFile &) = delete;

  const std::string &path() const { return path_; }
  const uint8_t *data() const { return data_; }
  size_t size() const { return size_; }
  std::string_view text() const { return {reinterpret_cast<const char *>(data_), size_}; }
  /// Tells the system that the pages of [offset, offset + size) will not be needed soon: keeps the resident set small.
  void Release(size_t offset, size_t size) const;

 private:
  std::string path_;
  const uint8_t *data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace acorn::compiler
