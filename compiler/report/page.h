// The page of a conversion's report: one HTML text with its style and pictures inside, readable without a network or scripts.
#pragma once

#include <string>

#include "report/report.h"

namespace acorn::compiler {

/// Sections without data leave no trace.
std::string ReportPage(const ConversionReport &report);

}  // namespace acorn::compiler
