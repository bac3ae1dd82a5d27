// A GGUF file by anybody: refused, or all that its configuration names can be read, and its tokenizer too. An input is a file.
#include "import/gguf.h"

#include "tests/fuzz/json_mutator.h"
#include "tests/fuzz/scratch.h"
#include "tests/fuzz/source_checks.h"
#include "tests/fuzz/text_checks.h"
#include "text/source_tokenizer.h"

namespace acorn::fuzz {
namespace {

void RunFile(const std::string &path) {
  EndsWell([&] {
    const compiler::GgufFile file(path);
    for (const auto &[name, tensor] : file.tensors()) {
      const uint64_t size = file.file().size();
      Require(tensor.offset_bytes <= size && tensor.size_bytes <= size - tensor.offset_bytes, "a tensor inside the file");
    }
  });
  EndsWell([&] {
    const std::unique_ptr<compiler::SourceModel> model = compiler::OpenSourceModel(path);
    ReadEverything(*model);
    EndsWell([&] {
      const std::unique_ptr<compiler::SourceTokenizer> tokenizer = compiler::OpenTokenizer(*model);
      DecodeAll(tokenizer->get(), EncodeAll(tokenizer->get(), "Hello <s> w\xc3\xb6rld 12", {}), {});
    });
  });
}

/// Where the numbers and the strings of a file's head stand.
struct Place {
  size_t at, bytes;  // of a string: its length, eight bytes before it
  bool is_string;
};

/// Walks the head as far as it makes sense. Returns where the tensors' data begin, 0 where it does not come so far.
class Walker {
 public:
  explicit Walker(std::string_view file) : file_(file) {}
  const std::vector<Place> &places() const { return places_; }

  size_t Walk() {
    at_ = 8;
    const uint64_t tensors = Number(8), keys = Number(8);
    for (uint64_t i = 0; i < keys && is_good_; ++i) String(), Value(Number(4), 0);
    for (uint64_t i = 0; i < tensors && is_good_; ++i) {
      String();
      const uint64_t dims = Number(4);
      for (uint64_t d = 0; d < dims && is_good_; ++d) Number(8);
      Number(4);
      Number(8);
    }
    return is_good_ ? at_ : 0;
  }

 private:
  uint64_t Number(size_t bytes) {
    if (bytes > file_.size() - at_) is_good_ = false;
    if (!is_good_) return 0;
    uint64_t value = 0;
    std::memcpy(&value, file_.data() + at_, bytes);
    places_.push_back({at_, bytes, false});
    at_ += bytes;
    return value;
  }
  void String() {
    const uint64_t bytes = Number(8);
    if (is_good_) places_.back().is_string = true;
    if (bytes > file_.size() - at_) is_good_ = false;
    if (is_good_) at_ += bytes;
  }
  void Value(uint64_t type, int depth) {
    constexpr size_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type == 8) return String();
    if (type == 9 && depth == 0) {
      const uint64_t element = Number(4), count = Number(8);
      for (uint64_t i = 0; i < count && is_good_; ++i) Value(element, 1);
      return;
    }
    if (type >= std::size(kBytes) || type == 9) {
      is_good_ = false;
      return;
    }
    Number(kBytes[type]);
  }

  std::string_view file_;
  size_t at_ = 0;
  bool is_good_ = true;
  std::vector<Place> places_;
};

/// A string's bytes with its length right; the data stay on multiples of 32 from the end of the head.
void ChangeString(Chooser *chooser, std::string *file, const Place &place, size_t head) {
  uint64_t length = 0;
  std::memcpy(&length, file->data() + place.at, 8);
  std::string text = file->substr(place.at + 8, length);
  ChangeText(&text, text.size() + 16);
  length = text.size();
  const auto padding = [](size_t bytes) { return (bytes + 31) / 32 * 32 - bytes; };
  std::string changed = file->substr(0, place.at) + std::string(8, '\0') + text;
  std::memcpy(changed.data() + place.at, &length, 8);
  const size_t behind = place.at + 8 + file->substr(place.at + 8).size();
  const size_t old_end = std::min(head + padding(head), behind);
  const size_t string_end = place.at + 8 + static_cast<size_t>(InputReader(reinterpret_cast<const uint8_t *>(file->data()) + place.at, 8).Number(8));
  changed += file->substr(string_end, head - string_end);
  if (!chooser->OneIn(16)) changed += std::string(padding(changed.size()), '\0');
  *file = changed + file->substr(old_end);
}

void ChangeFile(Chooser *chooser, std::string *file) {
  for (uint64_t i = 0; i <= chooser->Below(3); ++i) {
    Walker walker(*file);
    const size_t head = walker.Walk();
    const std::vector<Place> &places = walker.places();
    if (places.empty()) return;
    const Place &place = places[chooser->Below(places.size())];
    if (place.is_string && head != 0) {
      ChangeString(chooser, file, place, head);
    } else if (chooser->OneIn(8)) {
      const Place &other = places[chooser->Below(places.size())];
      std::memmove(file->data() + place.at, file->data() + other.at, std::min(place.bytes, other.bytes));
    } else {
      chooser->ChangeNumber(reinterpret_cast<uint8_t *>(file->data()) + place.at, place.bytes);
    }
  }
}

}  // namespace
}  // namespace acorn::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  using namespace acorn::fuzz;
  RunFile(TheScratch().Write("model.gguf", {reinterpret_cast<const char *>(data), std::max<size_t>(size, 1)}));
  return 0;
}

/// A number of the head, mostly, or a string of it with its length right.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
  using namespace acorn::fuzz;
  Chooser chooser(seed);
  if (size < 24 || chooser.OneIn(16)) return LLVMFuzzerMutate(data, size, max_size);
  std::string file(reinterpret_cast<const char *>(data), size);
  ChangeFile(&chooser, &file);
  if (file.size() > max_size) return size;
  std::copy(file.begin(), file.end(), data);
  return file.size();
}
