// Writes runtime/text/unicode_classes.inc and runtime/text/unicode_nfc.inc from utf8proc. A developer's program, run by
// hand when utf8proc moves to a new Unicode version:  acorn_generate_unicode_tables runtime/text
#include <utf8proc.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace {

constexpr utf8proc_int32_t kCodePoints = 0x110000;
constexpr utf8proc_int32_t kHangulFirst = 0xAC00, kHangulLast = 0xD7A3;
constexpr int kBlock = 128;

using CodePoints = std::vector<utf8proc_int32_t>;

bool IsSurrogate(utf8proc_int32_t c) { return c >= 0xD800 && c < 0xE000; }

unsigned ClassOf(utf8proc_int32_t c) {
  if ((c >= 9 && c <= 13) || c == 0x85) return 3;
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return 1;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return 2;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return 3;
    default:
      return 0;
  }
}

CodePoints Decompose(utf8proc_int32_t c) {
  utf8proc_int32_t buffer[16];
  const utf8proc_ssize_t n =
      utf8proc_decompose_char(c, buffer, 16, static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE), nullptr);
  if (n <= 0 || n > 16) std::abort();
  return CodePoints(buffer, buffer + n);
}

class Writer {
 public:
  explicit Writer(const std::string &path) : file_(std::fopen(path.c_str(), "w")) {
    if (file_ == nullptr) {
      std::perror(path.c_str());
      std::exit(5);
    }
    std::fprintf(file_, "// Unicode %s. Made by compiler/text/generate_unicode_tables.cc; do not edit.\n",
                 utf8proc_unicode_version());
  }
  ~Writer() { std::fclose(file_); }
  void Array(const char *type, const char *name, const char *comment, const std::vector<uint32_t> &values) {
    std::fprintf(file_, "\n// %s\nconstexpr %s %s[] = {", comment, type, name);
    size_t column = 200;
    for (const uint32_t value : values) {
      char text[16];
      const int length = std::snprintf(text, sizeof text, value < 10 ? "%u," : "0x%X,", value);
      if (column + length > 118) {
        std::fputs("\n   ", file_);
        column = 3;
      }
      std::fprintf(file_, " %s", text);
      column += length + 1;
    }
    std::fprintf(file_, "\n};\nconstexpr unsigned %sCount = %zu;\n", name, values.size());
  }

 private:
  std::FILE *file_;
};

void WriteClasses(const std::string &folder) {
  std::map<std::vector<uint32_t>, uint32_t> known;
  std::vector<uint32_t> index, words;
  for (utf8proc_int32_t first = 0; first < kCodePoints; first += kBlock) {
    std::vector<uint32_t> block(kBlock / 16);
    for (int i = 0; i < kBlock; ++i) block[i / 16] |= ClassOf(first + i) << (i % 16 * 2);
    const auto [entry, added] = known.emplace(block, known.size());
    if (added) words.insert(words.end(), block.begin(), block.end());
    index.push_back(entry->second);
  }
  if (known.size() > 256) std::abort();
  // Long runs of equal blocks end the planes: the index stops after the last block that differs from "nothing".
  const uint32_t nothing = known.at(std::vector<uint32_t>(kBlock / 16));
  while (!index.empty() && index.back() == nothing) index.pop_back();
  // A second stage over the index itself: 16 entries of it (2,048 code points) at a time.
  std::map<std::vector<uint32_t>, uint32_t> groups;
  std::vector<uint32_t> top, middle;
  index.resize((index.size() + 15) / 16 * 16, nothing);
  for (size_t i = 0; i < index.size(); i += 16) {
    const std::vector<uint32_t> group(index.begin() + i, index.begin() + i + 16);
    const auto [entry, added] = groups.emplace(group, groups.size());
    if (added) middle.insert(middle.end(), group.begin(), group.end());
    top.push_back(entry->second);
  }
  Writer out(folder + "/unicode_classes.inc");
  out.Array("uint8_t", "kClassTop", "[code point / 2048] -> group; beyond: class 0", top);
  out.Array("uint8_t", "kClassMiddle", "[group, code point / 128 % 16] -> block", middle);
  out.Array("uint32_t", "kClassWords", "[block, code point / 16 % 8]: 2 bits for each code point, lowest first", words);
}

void WriteNfc(const std::string &folder) {
  std::map<CodePoints, utf8proc_int32_t> by_decomposition;
  for (utf8proc_int32_t c = 0; c < kCodePoints; ++c) {
    if (IsSurrogate(c) || (c >= kHangulFirst && c <= kHangulLast)) continue;
    const CodePoints full = Decompose(c);
    if (full.size() >= 2) by_decomposition.emplace(full, c);
  }
  std::vector<uint32_t> decompositions, compositions, marks;
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> composition;
  for (utf8proc_int32_t c = 0; c < kCodePoints; ++c) {
    if (IsSurrogate(c) || (c >= kHangulFirst && c <= kHangulLast)) continue;
    const CodePoints full = Decompose(c);
    if (full.size() == 1 && full[0] == c) continue;
    uint32_t a = full[0], b = 0;
    if (full.size() >= 2) {
      const CodePoints head(full.begin(), full.end() - 1);
      b = full.back();
      if (head.size() >= 2) a = by_decomposition.at(head);
      // A primary composite is a character that comes back from its own decomposition.
      CodePoints text = full;
      const utf8proc_ssize_t n =
          utf8proc_normalize_utf32(text.data(), static_cast<utf8proc_ssize_t>(text.size()), UTF8PROC_COMPOSE);
      if (n == 1 && text[0] == c) composition[{a, b}] = decompositions.size() / 3;
    }
    decompositions.insert(decompositions.end(), {static_cast<uint32_t>(c), a, b});
  }
  for (const auto &[pair, entry] : composition) compositions.push_back(entry);
  for (utf8proc_int32_t c = 0, first = 0, current = 0; c <= kCodePoints; ++c) {
    const utf8proc_int32_t ccc = c < kCodePoints ? utf8proc_get_property(c)->combining_class : 0;
    if (ccc == current) continue;
    if (current != 0) {
      marks.push_back(static_cast<uint32_t>(first) << 8 | static_cast<uint32_t>(current));
      marks.push_back(static_cast<uint32_t>(c - 1));
    }
    first = c;
    current = ccc;
  }
  Writer out(folder + "/unicode_nfc.inc");
  out.Array("uint32_t", "kMarks", "Ranges of code points with a combining class: first << 8 | class, last; ascending", marks);
  out.Array("uint32_t", "kDecompositions", "Canonical mappings: code point, first, second (0: none); ascending",
            decompositions);
  out.Array("uint16_t", "kCompositions", "Entries of kDecompositions that compose again, ascending (first, second)",
            compositions);
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  WriteClasses(argv[1]);
  WriteNfc(argv[1]);
  return 0;
}
