#include "bench/kernels/shapes.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace acorn::bench {
namespace {

struct Kind {
  const char *name;
  bool named, formatted;  // a word before the numbers; one after those that must be there
  size_t least, most;     // numbers
};
constexpr Kind kKinds[] = {
    {"gemm", true, true, 3, 5},        {"rmsnorm", false, false, 1, 1}, {"layernorm", false, false, 1, 1},
    {"glu", false, false, 1, 1},       {"add", false, false, 1, 1},     {"requantise", false, false, 1, 1},
    {"lut_u8", false, false, 1, 1},    {"conv", false, false, 1, 1},    {"hadamard", false, false, 2, 2},
    {"rotate", false, false, 2, 2},    {"embed", false, true, 2, 2},    {"route", false, false, 2, 2},
    {"scan", false, false, 2, 2},      {"append", false, false, 3, 3},  {"attention", false, false, 5, 5},
    {"attention_window", false, false, 5, 5},                          {"attention_parts", false, false, 3, 3},
    {"experts", false, true, 5, 5},
};

struct Format {
  const char *name;
  WeightFormat format;
};
constexpr Format kFormats[] = {
    {"w8", WeightFormat::kW8},       {"w4", WeightFormat::kW4},         {"w4g32", WeightFormat::kW4G32},
    {"w4g64", WeightFormat::kW4G64}, {"w4g128", WeightFormat::kW4G128}, {"w2g32", WeightFormat::kW2G32},
};

bool ReadFormat(std::istringstream *words, Shape *shape) {
  *words >> shape->format_name;
  for (const Format &row : kFormats) {
    if (shape->format_name == row.name) {
      shape->format = row.format;
      return true;
    }
  }
  return false;
}

/// Null, or what is wrong.
const char *ReadShape(const std::string &line, Shape *shape) {
  std::istringstream words(line);
  words >> shape->kind;
  const Kind *kind = std::find_if(std::begin(kKinds), std::end(kKinds), [&](const Kind &row) { return shape->kind == row.name; });
  if (kind == std::end(kKinds)) return "no such kind";
  if (kind->named && !(words >> shape->name)) return "its name is missing";
  for (size_t number; shape->numbers.size() < kind->least && words >> number;) shape->numbers.push_back(number);
  if (shape->numbers.size() < kind->least) return "numbers are missing";
  if (kind->formatted && !ReadFormat(&words, shape)) return "no such format of weights";
  for (size_t number; words >> number;) shape->numbers.push_back(number);
  const size_t count = shape->numbers.size();
  if (!words.eof() || (count != kind->least && count != kind->most)) return "too much, or no number";
  if (std::count(shape->numbers.begin(), shape->numbers.end(), 0u) != 0) return "a number is 0";
  for (size_t i = 0; i < count && !kind->named; ++i) shape->name += (i == 0 ? "" : "x") + std::to_string(shape->numbers[i]);
  return nullptr;
}

}  // namespace

std::vector<Shape> ReadShapes() {
  std::vector<std::filesystem::path> files;
  for (const auto &entry : std::filesystem::directory_iterator(ACORN_SHAPES_DIR)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::vector<Shape> shapes;
  for (const std::filesystem::path &path : files) {
    std::ifstream file(path);
    std::string line;
    for (int number = 1; std::getline(file, line); ++number) {
      line.erase(std::min(line.find('#'), line.size()));
      if (line.find_first_not_of(' ') == std::string::npos) continue;
      Shape shape;
      shape.model = path.stem().string();
      if (const char *wrong = ReadShape(line, &shape)) {
        std::fprintf(stderr, "%s:%d: %s: %s\n", path.c_str(), number, wrong, line.c_str());
        std::exit(2);
      }
      shapes.push_back(shape);
    }
  }
  return shapes;
}

}  // namespace acorn::bench
