// Files that acornc carries in itself.
#pragma once

#include <string_view>

namespace acorn::compiler {

/// The built-in calibration text, UTF-8: resources/calibration.txt.
std::string_view CalibrationText();

/// The style sheet of a conversion's report: report/report.css.
std::string_view ReportStyle();

}  // namespace acorn::compiler
