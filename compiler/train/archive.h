// Archive: named arrays in one file, for what training must be able to go on from. Read back with every length checked; a file
// that ends early or was changed is refused.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace acorn::compiler {

class Archive {
 public:
  /// Elements are stored as they lie in memory: an archive is for the kind of machine that wrote it.
  template <typename T>
  void Put(const std::string &name, const T *data, size_t count) {
    std::vector<uint8_t> &bytes = entries_[name];
    bytes.resize(count * sizeof(T));
    if (count != 0) std::memcpy(bytes.data(), data, bytes.size());
  }
  template <typename T>
  void Put(const std::string &name, const std::vector<T> &values) {
    Put(name, values.data(), values.size());
  }
  template <typename T>
  void PutOne(const std::string &name, T value) {
    Put(name, &value, 1);
  }
  bool Has(const std::string &name) const { return entries_.count(name) != 0; }
  /// Throws Error(kIo) when there is no such array or it is not of whole T.
  template <typename T>
  std::vector<T> Get(const std::string &name) const {
    const std::vector<uint8_t> &bytes = Find(name, sizeof(T));
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  template <typename T>
  T GetOne(const std::string &name) const {
    const std::vector<uint8_t> &bytes = Find(name, sizeof(T));
    if (bytes.size() != sizeof(T)) Refuse(name);
    T value;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }

  /// Whole or not at all. Throws Error(kIo).
  void Save(const std::string &path) const;
  static Archive Load(const std::string &path);

 private:
  const std::vector<uint8_t> &Find(const std::string &name, size_t element) const;
  [[noreturn]] void Refuse(const std::string &name) const;

  std::string path_ = "archive";
  std::map<std::string, std::vector<uint8_t>> entries_;
};

}  // namespace acorn::compiler
