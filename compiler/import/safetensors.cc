#include "import/safetensors.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "import/json_reader.h"

namespace acorn::compiler {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxElems = uint64_t{1} << 40;

struct Dtype {
  const char *name;
  uint64_t bytes;
};

// All dtypes of the format with whole bytes, so that the sizes of tensors that are not used are checked too.
constexpr Dtype kDtypes[] = {
    {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"I16", 2}, {"U16", 2}, {"F16", 2},
    {"BF16", 2}, {"I32", 4}, {"U32", 4}, {"F32", 4},     {"F64", 8},     {"I64", 8}, {"U64", 8},
};

[[noreturn]] void Bad(const MappedFile &file, const std::string &what) {
  throw Error(ExitCode::kBadModel, file.path() + ": " + what);
}

uint64_t DtypeBytes(const MappedFile &file, const std::string &name, const std::string &dtype) {
  for (const Dtype &row : kDtypes) {
    if (dtype == row.name) return row.bytes;
  }
  Bad(file, "tensor " + name + ": unknown dtype " + dtype);
}

SafetensorsEntry ParseEntry(const MappedFile &file, const std::string &name, const nlohmann::json &value,
                            uint64_t data_offset) {
  const std::string what = "tensor " + name;
  if (!value.is_object()) Bad(file, what + ": is no object");
  const JsonReader reader(value, file.path() + ": " + what);
  SafetensorsEntry entry;
  entry.dtype = reader.String("dtype");
  const nlohmann::json *shape = reader.Find("shape");
  const nlohmann::json *offsets = reader.Find("data_offsets");
  if (shape == nullptr || !shape->is_array()) Bad(file, what + ": shape is no array");
  if (offsets == nullptr || !offsets->is_array() || offsets->size() != 2 || !(*offsets)[0].is_number_unsigned() ||
      !(*offsets)[1].is_number_unsigned()) {
    Bad(file, what + ": data_offsets are no pair of offsets");
  }
  uint64_t elems = 1;
  for (const nlohmann::json &dim : *shape) {
    if (!dim.is_number_unsigned()) Bad(file, what + ": shape holds something else than sizes");
    const uint64_t size = dim.get<uint64_t>();
    if (size > kMaxElems || (size != 0 && elems > kMaxElems / size)) {
      Bad(file, what + ": dimension " + std::to_string(size) + " is out of range");
    }
    elems *= size;
    entry.shape.push_back(static_cast<int64_t>(size));
  }
  const uint64_t begin = (*offsets)[0].get<uint64_t>();
  const uint64_t end = (*offsets)[1].get<uint64_t>();
  const uint64_t room = file.size() - data_offset;
  if (begin > end || end > room) {
    Bad(file, what + ": data [" + std::to_string(begin) + ", " + std::to_string(end) + ") does not fit the " +
                  std::to_string(room) + " bytes after offset " + std::to_string(data_offset));
  }
  entry.offset_bytes = data_offset + begin;
  entry.size_bytes = elems * DtypeBytes(file, name, entry.dtype);
  if (entry.size_bytes != end - begin) {
    Bad(file, what + " at offset " + std::to_string(entry.offset_bytes) + ": shape and dtype need " +
                  std::to_string(entry.size_bytes) + " bytes, the file gives " + std::to_string(end - begin));
  }
  return entry;
}

void CheckOverlaps(const MappedFile &file, const std::map<std::string, SafetensorsEntry> &entries) {
  using Row = std::pair<const std::string, SafetensorsEntry>;
  std::vector<const Row *> order;
  order.reserve(entries.size());
  for (const Row &row : entries) order.push_back(&row);
  std::sort(order.begin(), order.end(),
            [](const Row *a, const Row *b) { return a->second.offset_bytes < b->second.offset_bytes; });
  for (size_t i = 1; i < order.size(); ++i) {
    const SafetensorsEntry &before = order[i - 1]->second;
    if (order[i]->second.offset_bytes < before.offset_bytes + before.size_bytes) {
      Bad(file, "tensors " + order[i - 1]->first + " and " + order[i]->first + " overlap at offset " +
                    std::to_string(order[i]->second.offset_bytes));
    }
  }
}

}  // namespace

std::map<std::string, SafetensorsEntry> ParseSafetensors(const MappedFile &file) {
  if (file.size() < kLengthBytes) Bad(file, "no safetensors file: " + std::to_string(file.size()) + " bytes");
  uint64_t header_bytes = 0;
  for (uint64_t i = 0; i < kLengthBytes; ++i) header_bytes |= static_cast<uint64_t>(file.data()[i]) << (8 * i);
  if (header_bytes > kMaxSafetensorsHeaderBytes || header_bytes > file.size() - kLengthBytes) {
    Bad(file, "header of " + std::to_string(header_bytes) + " bytes at offset 8 does not fit the file of " +
                  std::to_string(file.size()) + " bytes, or the limit of " + std::to_string(kMaxSafetensorsHeaderBytes));
  }
  const nlohmann::json header =
      ParseJsonObject(file.text().substr(kLengthBytes, header_bytes), file.path() + ": safetensors header");
  std::map<std::string, SafetensorsEntry> entries;
  for (const auto &item : header.items()) {
    if (item.key() == "__metadata__") continue;
    entries.emplace(item.key(), ParseEntry(file, item.key(), item.value(), kLengthBytes + header_bytes));
  }
  CheckOverlaps(file, entries);
  return entries;
}

ElementType SafetensorsType(const SafetensorsEntry &entry, const std::string &name, const std::string &path) {
  for (const ElementType type : {ElementType::kF32, ElementType::kF16, ElementType::kBF16, ElementType::kF64}) {
    if (entry.dtype == ElementTypeName(type)) return type;
  }
  throw Error(ExitCode::kBadModel,
              path + ": tensor " + name + ": dtype " + entry.dtype + " is not supported; known are F32, F16, BF16, F64");
}

}  // namespace acorn::compiler
