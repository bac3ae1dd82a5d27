// acorn selftest: repeats the reference run that a file carries and says whether this machine computes the same integers; where
// it does not, which step of which layer is the first to differ, and which instruction sets are right.
#include <cinttypes>
#include <cstdio>

#include "commands.h"
#include "device.h"
#include "error.h"
#include "json.h"
#include "statistics.h"

namespace acorn::program {
namespace {

constexpr const char *kPhaseNames[] = {"", "prefill", "decode", "sample"};

struct Outcome {
  acorn_selftest_report report = {};
  std::string kernel;  // the report's, which ends with the model
  std::string isa;
  uint32_t threads = 0;
  std::vector<const char *> lower_isas;
};

Outcome RunOnce(const DeviceOptions &options) {
  DeviceNeeds needs;
  // A damaged weight is the file's fault: better told as such.
  needs.flags = ACORN_OPEN_TRACE | ACORN_OPEN_CHECK_WEIGHTS;
  Device device(options, needs);
  device.Open();
  Outcome outcome;
  outcome.report.struct_size = sizeof outcome.report;
  device.Check(acorn_session_selftest(device.session(), &outcome.report), "testing");
  if (outcome.report.kernel != nullptr) outcome.kernel = outcome.report.kernel;
  outcome.isa = device.isa();
  outcome.threads = device.plan().threads;
  outcome.lower_isas = device.LowerIsas();
  return outcome;
}

std::string Hex(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016" PRIx64, value);
  return text;
}

void PrintJson(const Outcome &outcome, const std::vector<const char *> &right) {
  const acorn_selftest_report &report = outcome.report;
  JsonWriter json;
  json.Raw("passed", report.passed != 0 ? "true" : "false");
  json.Number("tokens", report.tokens);
  json.Text("isa", outcome.isa);
  json.Number("threads", outcome.threads);
  json.Hex("digest", report.digest);
  json.Hex("ids_digest", report.ids_digest);
  if (report.passed == 0) {
    json.Text("phase", kPhaseNames[report.phase]);
    json.Raw("layer", std::to_string(report.layer));
    json.Number("step", report.step);
    json.Text("operator", report.op);
    json.Text("kernel", outcome.kernel);
    json.Hex("expected", report.expected);
    json.Hex("actual", report.actual);
    std::string names;
    for (const char *name : right) names += (names.empty() ? "" : ", ") + JsonQuoted(name);
    json.Raw("right_isas", "[" + names + "]");
  }
  std::printf("%s\n", json.Finish().c_str());
}

// One line for a phase: not reached, passed, or where it differs.
void PrintPhase(const acorn_selftest_report &report, uint32_t phase) {
  // The choices are compared while decoding, but count only where every step is right.
  const bool reached = report.phase == 0 || phase <= report.phase;
  std::printf("%-8s %s\n", kPhaseNames[phase], !reached ? "not reached" : report.phase == phase ? "differs" : "passed");
}

void PrintDifference(const Outcome &outcome) {
  const acorn_selftest_report &report = outcome.report;
  if (report.phase == ACORN_PHASE_SAMPLE) {
    std::printf("  generated token %u: %" PRIu64 " is expected, %" PRIu64 " was chosen (%s)\n", report.step, report.expected,
                report.actual, outcome.kernel.c_str());
    return;
  }
  const std::string layer = report.layer < 0 ? "outside the layers" : "layer " + std::to_string(report.layer);
  std::printf("  %s, %s (step %u), kernel %s\n  digest %s is expected, %s was computed\n", layer.c_str(), report.op, report.step,
              outcome.kernel.c_str(), Hex(report.expected).c_str(), Hex(report.actual).c_str());
}

// Whom to blame, from what the lower instruction sets gave.
std::string Hint(const Outcome &outcome, const std::vector<const char *> &right) {
  if (outcome.lower_isas.empty()) return "the portable kernels are wrong: the machine or the file is at fault, no instruction set";
  if (right.empty()) return "lower instruction sets are wrong too, scalar among them: the machine or the file is at fault";
  return "--isa " + std::string(right.front()) + " computes as the file says: the kernels for " + outcome.isa + " are at fault";
}

}  // namespace

void SelfTest(int argc, char **argv) {
  DeviceOptions options;
  bool json = false;
  Arguments arguments("selftest FILE [OPTIONS]", "Proves that this machine computes what the file says, to the bit.");
  arguments.Flag("--json", &json, "as one line of JSON");
  AddDeviceOptions(&arguments, &options);
  if (!arguments.Parse(argc, argv)) return;
  if (options.rate != 0 && options.rate != kNoRate) Fail(ExitCode::kUsage, "--rate: the reference run of a file is of rate 0");
  const uint32_t tokens = Device(options).plan().reference_tokens;
  if (tokens == 0) Fail(ExitCode::kModel, "%s has no reference run (acornc record adds one)", options.file.c_str());
  if (options.context == 0) options.context = tokens;
  if (options.context < tokens) {
    Fail(ExitCode::kUsage, "--context %llu cannot hold the %u tokens of the reference run",
         static_cast<unsigned long long>(options.context), tokens);
  }

  const Outcome outcome = RunOnce(options);
  std::vector<const char *> right;
  if (outcome.report.passed == 0) {
    for (const char *isa : outcome.lower_isas) {
      options.isa = isa;
      if (RunOnce(options).report.passed != 0) right.push_back(isa);
    }
  }
  if (json) {
    PrintJson(outcome, right);
  } else {
    for (const uint32_t phase : {ACORN_PHASE_PREFILL, ACORN_PHASE_DECODE, ACORN_PHASE_SAMPLE}) PrintPhase(outcome.report, phase);
    if (outcome.report.passed == 0) PrintDifference(outcome);
    std::printf("machine  %u threads, %s; run of %u tokens\ndigest   %s\n", outcome.threads, outcome.isa.c_str(), tokens,
                Hex(outcome.report.digest).c_str());
  }
  if (outcome.report.passed == 0) Fail(ExitCode::kDifferent, "the self-test failed: %s", Hint(outcome, right).c_str());
}

}  // namespace acorn::program
