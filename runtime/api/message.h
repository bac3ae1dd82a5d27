// Message: builds one line for the port's log, without a C library. Cuts what does not fit.
#pragma once

#include <cstddef>
#include <cstdint>

namespace acorn {

class Message {
 public:
  Message &Text(const char *text) {
    for (; *text != 0; ++text) Byte(*text);
    return *this;
  }
  Message &Text(const char *text, size_t bytes) {
    // Names come from a model file: nothing that could steer a terminal goes out.
    for (size_t i = 0; i < bytes; ++i) Byte(text[i] >= ' ' && text[i] < 0x7f ? text[i] : '?');
    return *this;
  }
  Message &Number(uint64_t value) {
    char digits[20];
    int count = 0;
    do digits[count++] = static_cast<char>('0' + value % 10);
    while ((value /= 10) != 0);
    while (count > 0) Byte(digits[--count]);
    return *this;
  }

  const char *data() const { return bytes_; }
  size_t size() const { return size_; }

 private:
  void Byte(char byte) {
    if (size_ < sizeof(bytes_)) bytes_[size_++] = byte;
  }
  char bytes_[256];
  size_t size_ = 0;
};

}  // namespace acorn
