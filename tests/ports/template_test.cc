// The template under the conformance program, as it stands.
#include <gtest/gtest.h>

#include "port.h"
#include "tests/ports/conformance_block.h"

namespace acorn::test {
namespace {

TEST(Template, IsAConformingPort) {
  acorn_port port;
  acorn_template_port(&port);
  EXPECT_EQ(ConformanceBlock().Run(port), 0u);
}

}  // namespace
}  // namespace acorn::test
