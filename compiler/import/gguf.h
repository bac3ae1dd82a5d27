// GgufFile: the metadata and the tensor table of a GGUF file, version 2 or 3, little endian.
// For the model importer and the tokenizer builder. The file is hostile until parsed: every count, size and offset is
// checked before use, and a fault is an Error(kBadModel) with file, key or tensor, and offset.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "import/dequantize.h"

namespace acorn::compiler {

/// Metadata types, numbered as in the file.
enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

/// One metadata value. Strings point into the mapped file and live as long as the GgufFile.
struct GgufValue {
  GgufType type = GgufType::kUint8;
  int64_t integer = 0;                    // integers and bool
  double real = 0;                        // floats; for integers the same value
  std::string_view string;                // kString
  GgufType element = GgufType::kUint8;    // kArray: type of the elements (never kArray)
  std::vector<std::string_view> strings;  // kArray of kString
  std::vector<int64_t> integers;          // kArray of integers or bool
  std::vector<double> reals;              // kArray of floats
};

struct GgufTensor {
  std::string name;
  std::vector<int64_t> shape;  // outermost first: [n, k] for a matrix (the file stores the reverse)
  ElementType type;
  uint64_t offset_bytes = 0;  // from the start of the file
  uint64_t size_bytes = 0;    // checked to lie in the file
};

class GgufFile {
 public:
  explicit GgufFile(const std::string &path);

  const std::string &path() const { return file_.path(); }
  const MappedFile &file() const { return file_; }
  uint32_t version() const { return version_; }
  /// True when the file starts with GGUF's magic; false also when it cannot be read.
  static bool IsGguf(const std::string &path);

  /// Null when there is no such key.
  const GgufValue *Find(const std::string &key) const;
  /// Nothing when the key is absent; Error(kBadModel) when it has another type.
  std::optional<std::string_view> FindString(const std::string &key) const;
  std::optional<int64_t> FindInteger(const std::string &key) const;
  std::optional<double> FindReal(const std::string &key) const;  // accepts integers
  std::optional<bool> FindBool(const std::string &key) const;
  /// Null when absent; Error(kBadModel) when it is no array of that kind.
  const std::vector<std::string_view> *FindStrings(const std::string &key) const;
  const std::vector<int64_t> *FindIntegers(const std::string &key) const;
  const std::vector<double> *FindReals(const std::string &key) const;

  const std::map<std::string, GgufValue> &metadata() const { return metadata_; }
  const std::map<std::string, GgufTensor> &tensors() const { return tensors_; }
  const GgufTensor *FindTensor(const std::string &name) const;

 private:
  MappedFile file_;
  uint32_t version_ = 0;
  std::map<std::string, GgufValue> metadata_;
  std::map<std::string, GgufTensor> tensors_;
};

}  // namespace acorn::compiler
