#include "quantize/integer_form.h"

#include "base/error.h"

namespace acorn::compiler {

void CheckIntegerForm(const ModelConfig &config, const std::string &path) {
  const char *what = nullptr;
  if (config.HasStateSpace()) {
    what = "state-space layers";
  } else if (config.residual_scale != 1 || config.attention_scale != 0 || config.logit_scale != 1) {
    what = "multipliers of attention, residual stream and logits";
  } else if (config.shared_ffn != 0 && !config.shared_gate) {
    what = "a shared expert without a gate";
  }
  if (what == nullptr) return;
  throw Error(ExitCode::kBadModel, path + ": architecture " + config.architecture + " has " + what +
                                       ", for which there is no integer form in this version; acornc perplexity and " +
                                       "acornc eval run it in float");
}

}  // namespace acorn::compiler
