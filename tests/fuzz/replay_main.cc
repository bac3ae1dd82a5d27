// A fuzz target without libFuzzer: runs files, and the files of folders, and as many changed inputs of each as asked, the same in
// every run.  [--changes=N] FILE|FOLDER...; a folder need not exist. What crashes leaves its input in the present folder.
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/fuzz/fuzz.h"

extern "C" __attribute__((weak)) size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

namespace {

std::mt19937 mutate_random;  // of LLVMFuzzerMutate, which has no seed

std::string ReadFile(const std::filesystem::path &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// Runs an input, from exactly as many bytes.
void Run(const std::string &input, const std::string &name) {
  static std::string written;  // the last input: gone when all is well
  written = name + ".input";
  std::ofstream(written, std::ios::binary) << input;
  const acorn::fuzz::ExactBytes bytes(reinterpret_cast<const uint8_t *>(input.data()), input.size(), 16);
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  std::filesystem::remove(written);
}

}  // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size) {
  acorn::fuzz::Chooser chooser(mutate_random());
  if (size == 0 || (size < max_size && chooser.OneIn(4))) {
    const size_t at = chooser.Below(size + 1);
    std::memmove(data + at + 1, data + at, size - at);
    data[at] = static_cast<uint8_t>(chooser.Bits());
    return size + 1;
  }
  const size_t at = chooser.Below(size);
  if (chooser.OneIn(4)) {
    const size_t count = 1 + chooser.Below(size - at);
    std::memmove(data + at, data + at + count, size - at - count);
    return size - count;
  }
  chooser.ChangeNumber(data + at, std::min<size_t>(size - at, size_t{1} << chooser.Below(4)));
  return size;
}

int main(int argc, char **argv) {
  namespace fs = std::filesystem;
  constexpr std::string_view kChanges = "--changes=";
  unsigned long changes = 0;
  std::vector<fs::path> files;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.substr(0, kChanges.size()) == kChanges) {
      changes = std::stoul(argv[i] + kChanges.size());
    } else if (fs::is_directory(argument)) {
      for (const fs::directory_entry &entry : fs::directory_iterator(argument)) files.push_back(entry.path());
    } else if (fs::exists(argument)) {
      files.emplace_back(argument);
    }
  }
  std::sort(files.begin(), files.end());
  if (files.empty()) {
    std::fprintf(stderr, "%s: no inputs; acorn_fuzz_seeds writes them\n", argv[0]);
    return 2;
  }
  const std::string name = fs::path(argv[0]).filename().string();
  for (const fs::path &path : files) {
    const std::string seed = ReadFile(path);
    Run(seed, name);
    std::string input;
    for (unsigned int i = 0; i < changes; ++i) {
      // A few changes on top of each other, then from the seed again.
      if (i % 5 == 0) input = seed;
      const size_t size = input.size(), room = size + size / 2 + 4096;
      input.resize(room);
      auto *data = reinterpret_cast<uint8_t *>(input.data());
      input.resize(LLVMFuzzerCustomMutator != nullptr ? LLVMFuzzerCustomMutator(data, size, room, i) : LLVMFuzzerMutate(data, size, room));
      Run(input, name);
    }
  }
  std::printf("%s: %zu inputs, %zu runs\n", name.c_str(), files.size(), files.size() * (changes + 1));
  return 0;
}
