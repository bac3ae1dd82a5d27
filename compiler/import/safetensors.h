// The tensor table of a safetensors file: u64 header length, JSON header, data. The file is hostile until parsed:
// every size, product and offset is checked, tensors must not overlap.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "import/dequantize.h"

namespace acorn::compiler {

struct SafetensorsEntry {
  std::string dtype;           // as the file names it
  std::vector<int64_t> shape;  // outermost first; empty for a scalar
  uint64_t offset_bytes = 0;   // from the start of the file
  uint64_t size_bytes = 0;
};

/// Longest legal header, the limit of the format's own reader.
inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100000000;

/// All tensors by name. Throws Error(kBadModel) with file, tensor and offset.
std::map<std::string, SafetensorsEntry> ParseSafetensors(const MappedFile &file);

/// The element type of an entry that is to be read; Error(kBadModel) when its dtype is not one of F32, F16, BF16, F64.
ElementType SafetensorsType(const SafetensorsEntry &entry, const std::string &name, const std::string &path);

}  // namespace acorn::compiler
