// The template under the conformance program, as it stands and with the storage of a simulated device behind it.
#include <gtest/gtest.h>

#include "acorn_simulated.h"
#include "port.h"
#include "tests/ports/conformance_block.h"

namespace acorn::test {
namespace {

TEST(Template, IsAConformingPort) {
  acorn_port port;
  acorn_template_port(&port);
  EXPECT_EQ(ConformanceBlock().Run(port), 0u);
}

TEST(Template, ConformsWithASimulatedDeviceThatBringsReadsOutOfOrder) {
  ConformanceBlock block;
  acorn_port inner;
  acorn_template_port(&inner);
  acorn_simulated_options options = {};
  options.struct_size = sizeof options;
  options.timing = acorn_device_find("ufs31")->timing;
  options.depth = 7;
  options.alignment = 4096;
  options.file = block.file().data();
  options.file_bytes = block.file().size();
  options.jitter_ns = 1000000;
  options.tick_ns = 1;
  acorn_simulated *simulated = acorn_simulated_create(&options, &inner);
  ASSERT_NE(simulated, nullptr);
  acorn_port port;
  acorn_simulated_port(simulated, &port);
  EXPECT_EQ(block.Run(port), 0u);
  acorn_simulated_destroy(simulated);
}

}  // namespace
}  // namespace acorn::test
