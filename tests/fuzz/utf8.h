// Whether bytes are UTF-8, by the table of the Unicode standard (table 3-7), independent of the runtime's own. For fuzz targets.
#pragma once

#include <cstdint>
#include <string_view>

namespace acorn::fuzz {

inline bool IsUtf8(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  for (size_t i = 0; i < text.size();) {
    const uint8_t first = byte(i);
    const size_t bytes = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (bytes == 0 || bytes > text.size() - i) return false;
    for (size_t k = 1; k < bytes; ++k) {
      if ((byte(i + k) & 0xc0) != 0x80) return false;
    }
    if ((first == 0xe0 && byte(i + 1) < 0xa0) || (first == 0xed && byte(i + 1) > 0x9f)) return false;
    if ((first == 0xf0 && byte(i + 1) < 0x90) || (first == 0xf4 && byte(i + 1) > 0x8f)) return false;
    i += bytes;
  }
  return true;
}

}  // namespace acorn::fuzz
