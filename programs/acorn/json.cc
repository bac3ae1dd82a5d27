#include "json.h"

#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace acorn::program {
namespace {

constexpr int kMaxDepth = 64;

std::string Formatted(const char *format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

void AppendUtf8(std::string *out, uint32_t code) {
  if (code < 0x80) {
    *out += static_cast<char>(code);
  } else if (code < 0x800) {
    *out += static_cast<char>(0xc0 | code >> 6);
    *out += static_cast<char>(0x80 | (code & 63));
  } else if (code < 0x10000) {
    *out += static_cast<char>(0xe0 | code >> 12);
    *out += static_cast<char>(0x80 | (code >> 6 & 63));
    *out += static_cast<char>(0x80 | (code & 63));
  } else {
    *out += static_cast<char>(0xf0 | code >> 18);
    *out += static_cast<char>(0x80 | (code >> 12 & 63));
    *out += static_cast<char>(0x80 | (code >> 6 & 63));
    *out += static_cast<char>(0x80 | (code & 63));
  }
}

// Walks over one JSON text. Every function returns false where the text is not JSON.
class Reader {
 public:
  explicit Reader(const std::string &text) : text_(text) {}

  bool IsObject() {
    Space();
    if (Peek() != '{' || !Skip(0)) return false;
    Space();
    return at_ == text_.size();
  }

  /// Moves to the first member of that name whose value starts with one of the characters.
  bool Find(const char *key, const char *starts) {
    if (!Take('{') || Take('}')) return false;
    do {
      std::string name;
      if (!String(&name) || !Take(':')) return false;
      Space();
      if (name == key && Peek() != 0 && std::strchr(starts, Peek()) != nullptr) return true;
      if (!Skip(0)) return false;
    } while (Take(','));
    return false;
  }

  bool String(std::string *out) {
    if (!Take('"')) return false;
    out->clear();
    while (at_ < text_.size()) {
      const char c = text_[at_++];
      if (c == '"') return true;
      if (c != '\\')
        *out += c;
      else if (!Escape(out))
        return false;
    }
    return false;
  }

  bool Strings(std::vector<std::string> *out) {
    out->clear();
    if (!Take('[')) return false;
    if (Take(']')) return true;
    do {
      out->emplace_back();
      if (!String(&out->back())) return false;
    } while (Take(','));
    return Take(']');
  }

  bool Integer(int64_t *out) {
    const bool negative = Take('-');
    const size_t begin = at_;
    *out = 0;
    for (; Peek() >= '0' && Peek() <= '9'; ++at_) {
      const int64_t digit = Peek() - '0';
      if (__builtin_mul_overflow(*out, int64_t{10}, out) ||
          __builtin_add_overflow(*out, negative ? -digit : digit, out)) {
        return false;
      }
    }
    const bool digits = at_ > begin;
    Space();
    return digits && (Peek() == ',' || Peek() == '}');
  }

 private:
  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void Space() {
    while (at_ < text_.size() && std::strchr(" \t\r\n", text_[at_]) != nullptr && text_[at_] != 0) ++at_;
  }
  bool Take(char wanted) {
    Space();
    if (Peek() != wanted) return false;
    ++at_;
    return true;
  }

  bool Hex4(uint32_t *code) {
    *code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = Peek();
      uint32_t digit;
      if (c >= '0' && c <= '9')
        digit = static_cast<uint32_t>(c - '0');
      else if (c >= 'a' && c <= 'f')
        digit = static_cast<uint32_t>(c - 'a' + 10);
      else if (c >= 'A' && c <= 'F')
        digit = static_cast<uint32_t>(c - 'A' + 10);
      else
        return false;
      *code = *code * 16 + digit;
    }
    return true;
  }

  bool Escape(std::string *out) {
    const char c = Peek();
    ++at_;
    static constexpr char kNames[] = "\"\\/bfnrt", kValues[] = "\"\\/\b\f\n\r\t";
    if (c != 'u') {
      const char *name = c == 0 ? nullptr : std::strchr(kNames, c);
      if (name == nullptr) return false;
      *out += kValues[name - kNames];
      return true;
    }
    uint32_t code, low;
    if (!Hex4(&code)) return false;
    if (code >= 0xd800 && code < 0xdc00 && text_.compare(at_, 2, "\\u") == 0) {
      at_ += 2;
      if (!Hex4(&low) || low < 0xdc00 || low > 0xdfff) return false;
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    AppendUtf8(out, code >= 0xd800 && code < 0xe000 ? 0xfffd : code);
    return true;
  }

  bool Skip(int depth) {
    Space();
    std::string ignored;
    const char c = Peek();
    if (depth > kMaxDepth) return false;
    if (c == '"') return String(&ignored);
    if (c != '{' && c != '[') {
      const size_t begin = at_;
      while (at_ < text_.size() && std::strchr(",]} \t\r\n", text_[at_]) == nullptr) ++at_;
      return at_ > begin;
    }
    const char end = c == '{' ? '}' : ']';
    ++at_;
    if (Take(end)) return true;
    do {
      if (c == '{' && (!String(&ignored) || !Take(':'))) return false;
      if (!Skip(depth + 1)) return false;
    } while (Take(','));
    return Take(end);
  }

  const std::string &text_;
  size_t at_ = 0;
};

}  // namespace

std::string JsonQuoted(const std::string &text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      out += escape;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

void JsonWriter::Key(const char *key) {
  if (text_.size() > 1) text_ += ", ";
  text_ += JsonQuoted(key) + ": ";
}

void JsonWriter::Text(const char *key, const std::string &value) { Raw(key, JsonQuoted(value)); }

void JsonWriter::Number(const char *key, uint64_t value) { Raw(key, std::to_string(value)); }

void JsonWriter::Decimal(const char *key, double value) { Raw(key, std::isfinite(value) ? Formatted("%.6g", value) : "null"); }

void JsonWriter::Hex(const char *key, uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "\"%016" PRIx64 "\"", value);
  Raw(key, text);
}

void JsonWriter::Raw(const char *key, const std::string &value) {
  Key(key);
  text_ += value;
}

bool IsJsonObject(const std::string &line) { return Reader(line).IsObject(); }

bool FindJsonText(const std::string &line, const char *key, std::string *value) {
  Reader reader(line);
  return reader.Find(key, "\"") && reader.String(value);
}

bool FindJsonTexts(const std::string &line, const char *key, std::vector<std::string> *values) {
  Reader reader(line);
  return reader.Find(key, "[") && reader.Strings(values);
}

bool FindJsonInteger(const std::string &line, const char *key, int64_t *value) {
  Reader reader(line);
  return reader.Find(key, "-0123456789") && reader.Integer(value);
}

}  // namespace acorn::program
