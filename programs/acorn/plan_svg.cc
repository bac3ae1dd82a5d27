#include "plan_svg.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "error.h"
#include "statistics.h"

namespace acorn::program {
namespace {

constexpr int kWidth = 720, kLeft = 120, kBarWidth = 440, kRow = 34, kTop = 60;
constexpr const char *kColours[] = {"#4c6f91", "#8aa6bf", "#c2803d", "#d9b26f", "#7c9a5b", "#a8a8a8"};

std::string Escaped(const std::string &text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else
      out += c;
  }
  return out;
}

std::string Text(int x, int y, const char *style, const std::string &text) {
  char head[160];
  std::snprintf(head, sizeof head, "<text x=\"%d\" y=\"%d\" %s>", x, y, style);
  return head + Escaped(text) + "</text>\n";
}

std::string Picture(const std::string &title, const std::vector<PlanClass> &classes) {
  uint64_t largest = 1;
  for (const PlanClass &part : classes) largest = std::max(largest, part.bytes);
  const int height = kTop + kRow * static_cast<int>(classes.size()) + 20;
  char text[256];
  std::snprintf(text, sizeof text,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" "
                "font-size=\"13\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
                kWidth, height);
  std::string svg = text;
  svg += Text(20, 30, "font-size=\"16\"", "Memory plan: " + title);
  for (size_t i = 0; i < classes.size(); ++i) {
    const int y = kTop + kRow * static_cast<int>(i);
    const double width = static_cast<double>(classes[i].bytes) / static_cast<double>(largest) * kBarWidth;
    svg += Text(kLeft - 10, y + 16, "text-anchor=\"end\"", classes[i].name);
    std::snprintf(text, sizeof text,
                  "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"22\" fill=\"%s\"><title>%s</title></rect>\n", kLeft, y,
                  width, kColours[i % (sizeof kColours / sizeof kColours[0])], classes[i].what);
    svg += text;
    svg += Text(kLeft + static_cast<int>(width) + 8, y + 16, "fill=\"#333\"", HumanBytes(classes[i].bytes));
  }
  return svg + "</svg>\n";
}

}  // namespace

void WritePlanSvg(const std::string &path, const std::string &title, const std::vector<PlanClass> &classes) {
  const std::string svg = Picture(title, classes);
  std::FILE *file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) Fail(ExitCode::kIo, "%s: %s", path.c_str(), std::strerror(errno));
  const bool written = std::fwrite(svg.data(), 1, svg.size(), file) == svg.size();
  if (std::fclose(file) != 0 || !written) {
    std::remove(path.c_str());
    Fail(ExitCode::kIo, "%s: cannot be written", path.c_str());
  }
}

}  // namespace acorn::program
