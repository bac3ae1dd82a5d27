// Changes a safetensors file: its header as JSON, with the length before it right, or its bytes. For fuzz targets.
#pragma once

#include "tests/fuzz/json_mutator.h"

namespace acorn::fuzz {

inline void ChangeSafetensors(Chooser *chooser, std::string *file, size_t longest) {
  constexpr size_t kLengthBytes = 8;
  InputReader reader(reinterpret_cast<const uint8_t *>(file->data()), file->size());
  std::string header(reader.Take(reader.Number(kLengthBytes)));
  const std::string data(reader.rest());
  if (file->size() < kLengthBytes || chooser->OneIn(8)) return ChangeText(file, longest);
  ChangeJson(chooser, &header, std::min<size_t>(longest, header.size() + 4096));
  uint64_t length = header.size();
  if (chooser->OneIn(32)) length = chooser->Number(length, kLengthBytes);
  std::string changed(kLengthBytes, '\0');
  std::memcpy(changed.data(), &length, kLengthBytes);
  changed += header + data;
  if (changed.size() <= longest) *file = std::move(changed);
}

}  // namespace acorn::fuzz
