#include "plan_svg.h"

#include <algorithm>
#include <cstdio>

#include "statistics.h"
#include "svg.h"

namespace acorn::program {
namespace {

constexpr int kWidth = 720, kLeft = 120, kBarWidth = 440, kRow = 34, kTop = 60;
constexpr const char *kColours[] = {"#4c6f91", "#8aa6bf", "#c2803d", "#d9b26f", "#7c9a5b", "#a8a8a8"};

std::string Picture(const std::string &title, const std::vector<PlanClass> &classes) {
  uint64_t largest = 1;
  for (const PlanClass &part : classes) largest = std::max(largest, part.bytes);
  const int height = kTop + kRow * static_cast<int>(classes.size()) + 20;
  char text[256];
  std::string svg = SvgHead(kWidth, height);
  svg += SvgText(20, 30, "font-size=\"16\"", "Memory plan: " + title);
  for (size_t i = 0; i < classes.size(); ++i) {
    const int y = kTop + kRow * static_cast<int>(i);
    const double width = static_cast<double>(classes[i].bytes) / static_cast<double>(largest) * kBarWidth;
    svg += SvgText(kLeft - 10, y + 16, "text-anchor=\"end\"", classes[i].name);
    std::snprintf(text, sizeof text,
                  "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"22\" fill=\"%s\"><title>%s</title></rect>\n", kLeft, y,
                  width, kColours[i % (sizeof kColours / sizeof kColours[0])], classes[i].what);
    svg += text;
    svg += SvgText(kLeft + static_cast<int>(width) + 8, y + 16, "fill=\"#333\"", HumanBytes(classes[i].bytes));
  }
  return svg + "</svg>\n";
}

}  // namespace

void WritePlanSvg(const std::string &path, const std::string &title, const std::vector<PlanClass> &classes) {
  WriteSvg(path, Picture(title, classes));
}

}  // namespace acorn::program
