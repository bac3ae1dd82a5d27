#include "import/gguf.h"

#include <algorithm>
#include <cstring>
#include <fstream>

#include "base/error.h"

namespace acorn::compiler {
namespace {

constexpr char kMagic[4] = {'G', 'G', 'U', 'F'};
constexpr int64_t kDefaultAlignment = 32;
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kMaxElems = uint64_t{1} << 40;  // far above any tensor; keeps every product below 2^63

[[noreturn]] void Bad(const std::string &path, const std::string &what) {
  throw Error(ExitCode::kBadModel, path + ": " + what);
}

// Reads little-endian values from a file and refuses to step over its end.
class Reader {
 public:
  explicit Reader(const MappedFile &file) : file_(file) {}

  uint64_t offset() const { return offset_; }
  uint64_t left() const { return file_.size() - offset_; }

  uint64_t Unsigned(int bytes, const std::string &what) {
    Need(static_cast<uint64_t>(bytes), what);
    uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) value |= static_cast<uint64_t>(file_.data()[offset_ + i]) << (8 * i);
    offset_ += static_cast<uint64_t>(bytes);
    return value;
  }

  std::string_view String(const std::string &what) {
    const uint64_t length = Unsigned(8, what);
    Need(length, what);
    const std::string_view text(reinterpret_cast<const char *>(file_.data()) + offset_, length);
    offset_ += length;
    return text;
  }

  void Need(uint64_t bytes, const std::string &what) const {
    if (bytes > left()) {
      Bad(file_.path(), what + " at offset " + std::to_string(offset_) + " needs " + std::to_string(bytes) +
                            " bytes, the file has " + std::to_string(left()) + " left");
    }
  }

 private:
  const MappedFile &file_;
  uint64_t offset_ = 0;
};

// Bytes of a scalar; 0 for strings, arrays and unknown types.
int ScalarBytes(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
      return 8;
    default:
      return 0;
  }
}

bool IsReal(GgufType type) { return type == GgufType::kFloat32 || type == GgufType::kFloat64; }

bool IsInteger(GgufType type) { return ScalarBytes(type) != 0 && !IsReal(type) && type != GgufType::kBool; }

int64_t ToInteger(uint64_t bits, GgufType type) {
  switch (type) {
    case GgufType::kInt8:
      return static_cast<int8_t>(bits);
    case GgufType::kInt16:
      return static_cast<int16_t>(bits);
    case GgufType::kInt32:
      return static_cast<int32_t>(bits);
    case GgufType::kBool:
      return bits != 0;
    default:
      return static_cast<int64_t>(bits);
  }
}

double ToReal(uint64_t bits, GgufType type) {
  if (type == GgufType::kFloat32) {
    const uint32_t low = static_cast<uint32_t>(bits);
    float value;
    std::memcpy(&value, &low, sizeof value);
    return value;
  }
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

GgufType ReadType(Reader &reader, const std::string &what) {
  return static_cast<GgufType>(static_cast<uint32_t>(reader.Unsigned(4, what)));
}

void ReadArray(Reader &reader, GgufValue *value, const std::string &path, const std::string &what) {
  value->element = ReadType(reader, what);
  const uint64_t count = reader.Unsigned(8, what);
  const int bytes = ScalarBytes(value->element);
  if (bytes == 0 && value->element != GgufType::kString) {
    Bad(path, what + ": array of type " + std::to_string(static_cast<uint32_t>(value->element)) + " is not supported");
  }
  const uint64_t least_bytes = bytes == 0 ? 8 : static_cast<uint64_t>(bytes);  // a string has at least its length
  if (count > reader.left() / least_bytes) {
    Bad(path, what + " at offset " + std::to_string(reader.offset()) + ": array of " + std::to_string(count) +
                  " elements does not fit the file");
  }
  if (value->element == GgufType::kString) {
    value->strings.reserve(count);
    for (uint64_t i = 0; i < count; ++i) value->strings.push_back(reader.String(what));
  } else if (IsReal(value->element)) {
    value->reals.reserve(count);
    for (uint64_t i = 0; i < count; ++i) value->reals.push_back(ToReal(reader.Unsigned(bytes, what), value->element));
  } else {
    value->integers.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      value->integers.push_back(ToInteger(reader.Unsigned(bytes, what), value->element));
    }
  }
}

GgufValue ReadValue(Reader &reader, const std::string &path, const std::string &what) {
  GgufValue value;
  value.type = ReadType(reader, what);
  if (value.type == GgufType::kString) {
    value.string = reader.String(what);
  } else if (value.type == GgufType::kArray) {
    ReadArray(reader, &value, path, what);
  } else {
    const int bytes = ScalarBytes(value.type);
    if (bytes == 0) Bad(path, what + ": unknown type " + std::to_string(static_cast<uint32_t>(value.type)));
    const uint64_t bits = reader.Unsigned(bytes, what);
    if (IsReal(value.type)) {
      value.real = ToReal(bits, value.type);
    } else {
      value.integer = ToInteger(bits, value.type);
      value.real = static_cast<double>(value.integer);
    }
  }
  return value;
}

struct TypeRow {
  uint32_t number;
  ElementType type;
};

constexpr TypeRow kTensorTypes[] = {
    {0, ElementType::kF32},   {1, ElementType::kF16},   {2, ElementType::kQ4_0}, {3, ElementType::kQ4_1},
    {6, ElementType::kQ5_0},  {7, ElementType::kQ5_1},  {8, ElementType::kQ8_0}, {12, ElementType::kQ4_K},
    {13, ElementType::kQ5_K}, {14, ElementType::kQ6_K}, {28, ElementType::kF64}, {30, ElementType::kBF16},
};

ElementType TensorType(uint32_t number, const std::string &path, const std::string &what) {
  std::string known;
  for (const TypeRow &row : kTensorTypes) {
    if (row.number == number) return row.type;
    known += std::string(known.empty() ? "" : ", ") + ElementTypeName(row.type);
  }
  Bad(path, what + ": type " + std::to_string(number) + " is not supported; known are " + known);
}

// Reads one row of the tensor table; offset_bytes stays relative to the data section.
GgufTensor ReadTensor(Reader &reader, const std::string &path, uint64_t index) {
  GgufTensor tensor;
  tensor.name = reader.String("name of tensor " + std::to_string(index));
  const std::string what = "tensor " + tensor.name;
  const uint64_t dims = reader.Unsigned(4, what);
  if (dims == 0 || dims > kMaxDims) Bad(path, what + ": " + std::to_string(dims) + " dimensions");
  uint64_t elems = 1;
  for (uint64_t i = 0; i < dims; ++i) {
    const uint64_t dim = reader.Unsigned(8, what);
    if (dim == 0 || dim > kMaxElems / elems) Bad(path, what + ": dimension " + std::to_string(dim) + " is out of range");
    elems *= dim;
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(dim));
  }
  tensor.type = TensorType(static_cast<uint32_t>(reader.Unsigned(4, what)), path, what);
  const uint64_t block = static_cast<uint64_t>(BlockElems(tensor.type));
  if (static_cast<uint64_t>(tensor.shape.back()) % block != 0) {
    Bad(path, what + ": rows of " + std::to_string(tensor.shape.back()) + " are no whole " + ElementTypeName(tensor.type) +
                  " blocks");
  }
  tensor.size_bytes = elems / block * static_cast<uint64_t>(BlockBytes(tensor.type));
  tensor.offset_bytes = reader.Unsigned(8, what);
  return tensor;
}

void CheckOverlaps(const std::map<std::string, GgufTensor> &tensors, const std::string &path) {
  std::vector<const GgufTensor *> order;
  order.reserve(tensors.size());
  for (const auto &entry : tensors) order.push_back(&entry.second);
  std::sort(order.begin(), order.end(),
            [](const GgufTensor *a, const GgufTensor *b) { return a->offset_bytes < b->offset_bytes; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->offset_bytes < order[i - 1]->offset_bytes + order[i - 1]->size_bytes) {
      Bad(path, "tensors " + order[i - 1]->name + " and " + order[i]->name + " overlap at offset " +
                    std::to_string(order[i]->offset_bytes));
    }
  }
}

}  // namespace

GgufFile::GgufFile(const std::string &path) : file_(path) {
  Reader reader(file_);
  reader.Need(sizeof kMagic, "magic");
  if (std::memcmp(file_.data(), kMagic, sizeof kMagic) != 0) Bad(path, "not a GGUF file");
  reader.Unsigned(4, "magic");
  version_ = static_cast<uint32_t>(reader.Unsigned(4, "version"));
  if (version_ != 2 && version_ != 3) {
    Bad(path, "GGUF version " + std::to_string(version_) + " is not supported; known are 2 and 3, little endian");
  }
  const uint64_t tensor_count = reader.Unsigned(8, "tensor count");
  const uint64_t key_count = reader.Unsigned(8, "metadata count");
  for (uint64_t i = 0; i < key_count; ++i) {
    const std::string key(reader.String("metadata key " + std::to_string(i)));
    GgufValue value = ReadValue(reader, path, "metadata " + key);
    if (!metadata_.emplace(key, std::move(value)).second) Bad(path, "metadata " + key + " is given twice");
  }
  for (uint64_t i = 0; i < tensor_count; ++i) {
    GgufTensor tensor = ReadTensor(reader, path, i);
    const std::string name = tensor.name;
    if (!tensors_.emplace(name, std::move(tensor)).second) Bad(path, "tensor " + name + " is given twice");
  }
  const int64_t alignment = FindInteger("general.alignment").value_or(kDefaultAlignment);
  if (alignment <= 0 || alignment > (int64_t{1} << 20) || (alignment & (alignment - 1)) != 0) {
    Bad(path, "general.alignment " + std::to_string(alignment) + " is no power of two up to 1 MiB");
  }
  const uint64_t step = static_cast<uint64_t>(alignment);
  const uint64_t data = (reader.offset() + step - 1) / step * step;
  for (auto &entry : tensors_) {
    GgufTensor &tensor = entry.second;
    const uint64_t room = file_.size() < data ? 0 : file_.size() - data;
    if (tensor.offset_bytes % step != 0 || tensor.offset_bytes > room || tensor.size_bytes > room - tensor.offset_bytes) {
      Bad(path, "tensor " + tensor.name + ": offset " + std::to_string(tensor.offset_bytes) + " with " +
                    std::to_string(tensor.size_bytes) + " bytes does not fit the " + std::to_string(room) +
                    " bytes of data, or is not aligned to " + std::to_string(alignment));
    }
    tensor.offset_bytes += data;
  }
  CheckOverlaps(tensors_, path);
}

bool GgufFile::IsGguf(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  char magic[sizeof kMagic] = {};
  file.read(magic, sizeof magic);
  return file && std::memcmp(magic, kMagic, sizeof kMagic) == 0;
}

const GgufValue *GgufFile::Find(const std::string &key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? nullptr : &found->second;
}

std::optional<std::string_view> GgufFile::FindString(const std::string &key) const {
  const GgufValue *value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kString) Bad(path(), "metadata " + key + " is no string");
  return value->string;
}

std::optional<int64_t> GgufFile::FindInteger(const std::string &key) const {
  const GgufValue *value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (!IsInteger(value->type)) Bad(path(), "metadata " + key + " is no integer");
  return value->integer;
}

std::optional<double> GgufFile::FindReal(const std::string &key) const {
  const GgufValue *value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (!IsInteger(value->type) && !IsReal(value->type)) Bad(path(), "metadata " + key + " is no number");
  return value->real;
}

std::optional<bool> GgufFile::FindBool(const std::string &key) const {
  const GgufValue *value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kBool) Bad(path(), "metadata " + key + " is no bool");
  return value->integer != 0;
}

const std::vector<std::string_view> *GgufFile::FindStrings(const std::string &key) const {
  const GgufValue *value = Find(key);
  if (value == nullptr) return nullptr;
  if (value->type != GgufType::kArray || value->element != GgufType::kString) {
    Bad(path(), "metadata " + key + " is no array of strings");
  }
  return &value->strings;
}

const std::vector<int64_t> *GgufFile::FindIntegers(const std::string &key) const {
  const GgufValue *value = Find(key);
  if (value == nullptr) return nullptr;
  if (value->type != GgufType::kArray || value->element == GgufType::kString || IsReal(value->element)) {
    Bad(path(), "metadata " + key + " is no array of integers");
  }
  return &value->integers;
}

const std::vector<double> *GgufFile::FindReals(const std::string &key) const {
  const GgufValue *value = Find(key);
  if (value == nullptr) return nullptr;
  if (value->type != GgufType::kArray || !IsReal(value->element)) {
    Bad(path(), "metadata " + key + " is no array of floats");
  }
  return &value->reals;
}

const GgufTensor *GgufFile::FindTensor(const std::string &name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

}  // namespace acorn::compiler
