// acorn plan: the memory that a model needs, by class, from the file alone.
#include <cstdio>

#include "commands.h"
#include "device.h"
#include "error.h"
#include "json.h"
#include "plan_svg.h"
#include "statistics.h"

namespace acorn::program {
namespace {

std::vector<PlanClass> ClassesOf(const acorn_memory_plan &plan) {
  return {{"image", "the file: mapped, or in flash; never copied", plan.image_bytes},
          {"model", "the parsed graph", plan.model_bytes},
          {"session", "keys and values, states, logits, history, sampler", plan.session_bytes},
          {"scratch", "activations and the kernels' own", plan.scratch_bytes},
          {"expert slots", "experts that are kept", plan.expert_slot_bytes},
          {"I/O staging", "reads on their way", plan.io_bytes}};
}

double RealisedPercent(const acorn_rate_plan &row) {
  return row.prunable_bytes == 0 ? 0 : 100.0 * static_cast<double>(row.left_out_bytes) / static_cast<double>(row.prunable_bytes);
}

void PrintRates(const std::vector<acorn_rate_plan> &rows) {
  std::printf("  %-6s %9s  %13s  %12s  %11s  %11s\n", "rate", "realised", "weights/token", "keys, values", "states", "resident");
  for (const acorn_rate_plan &row : rows) {
    std::printf("  %3u %%  %7.1f %%  %13s  %12s  %11s  %11s\n", row.rate, RealisedPercent(row), HumanBytes(row.weight_bytes).c_str(),
                HumanBytes(row.cache_row_bytes).c_str(), HumanBytes(row.state_bytes).c_str(),
                HumanBytes(row.resident_bytes).c_str());
  }
  std::printf("  realised: of the %s that any rate narrows; keys, values: a token's; resident: the block, and what is read of the file\n",
              HumanBytes(rows.front().prunable_bytes).c_str());
}

void PrintTable(const DeviceOptions &options, const acorn_memory_plan &plan, const std::vector<acorn_rate_plan> &rates) {
  std::printf("%s: context %s%u, chunk %u, %u threads\n", options.file.c_str(),
              plan.endless != 0 ? "without an end, the last " : "", plan.context_tokens, plan.chunk_tokens, plan.threads);
  for (const PlanClass &part : ClassesOf(plan)) {
    std::printf("  %-13s %13llu  %11s  %s\n", part.name, static_cast<unsigned long long>(part.bytes),
                HumanBytes(part.bytes).c_str(), part.what);
  }
  std::printf("  %-13s %13llu  %11s  %s\n", "block", static_cast<unsigned long long>(plan.block_bytes),
              HumanBytes(plan.block_bytes).c_str(), "what the library takes: all but the image");
  if (plan.state_bytes != 0) {
    std::printf("  %s of a session are states of its layers: the same for any context\n", HumanBytes(plan.state_bytes).c_str());
  }
  if (rates.size() > 1) PrintRates(rates);
  if (plan.experts == 0) return;
  std::printf("  %u experts of %s; one token visits %u of them\n", plan.experts, HumanBytes(plan.expert_record_bytes).c_str(),
              plan.useful_expert_slots);
  if (plan.expert_slots != 0 && plan.expert_slots < plan.useful_expert_slots) {
    std::printf("  warning: room for %u: %s read anew for every token. From --expert-cache %llu on those of one token stay\n",
                plan.expert_slots, options.expert_policy == "lru" ? "every expert is" : "all but the most popular experts are",
                static_cast<unsigned long long>(plan.useful_expert_slots) * plan.expert_record_bytes);
  }
}

std::string RatesJson(const std::vector<acorn_rate_plan> &rows) {
  std::string text = "[";
  for (const acorn_rate_plan &row : rows) {
    JsonWriter json;
    json.Number("rate", row.rate);
    json.Decimal("realised_percent", RealisedPercent(row));
    json.Number("weight_bytes", row.weight_bytes);
    json.Number("prunable_bytes", row.prunable_bytes);
    json.Number("left_out_bytes", row.left_out_bytes);
    json.Number("cache_row_bytes", row.cache_row_bytes);
    json.Number("state_bytes", row.state_bytes);
    json.Number("resident_bytes", row.resident_bytes);
    if (text.size() > 1) text += ',';
    text += json.Finish();
  }
  return text + "]";
}

void PrintJson(const std::string &file, const acorn_memory_plan &plan, const std::vector<acorn_rate_plan> &rates) {
  JsonWriter json;
  json.Text("file", file);
  json.Number("image_bytes", plan.image_bytes);
  json.Number("model_bytes", plan.model_bytes);
  json.Number("session_bytes", plan.session_bytes);
  json.Number("scratch_bytes", plan.scratch_bytes);
  json.Number("expert_slot_bytes", plan.expert_slot_bytes);
  json.Number("io_bytes", plan.io_bytes);
  json.Number("state_bytes", plan.state_bytes);
  json.Number("block_bytes", plan.block_bytes);
  json.Number("context_tokens", plan.context_tokens);
  json.Number("endless", plan.endless);
  json.Number("chunk_tokens", plan.chunk_tokens);
  json.Number("logit_rows", plan.logit_rows);
  json.Number("threads", plan.threads);
  json.Number("experts", plan.experts);
  json.Number("expert_slots", plan.expert_slots);
  json.Number("useful_expert_slots", plan.useful_expert_slots);
  json.Number("expert_record_bytes", plan.expert_record_bytes);
  json.Raw("rates", RatesJson(rates));
  std::printf("%s\n", json.Finish().c_str());
}

}  // namespace

void Plan(int argc, char **argv) {
  DeviceOptions options;
  bool json = false;
  std::string svg;
  Arguments arguments("plan FILE [OPTIONS]", "The memory that a model needs, before anything is opened.");
  arguments.Flag("--json", &json, "as one line of JSON");
  arguments.Text("--svg", &svg, "write a picture to this file");
  AddDeviceOptions(&arguments, &options);
  if (!arguments.Parse(argc, argv)) return;
  const Device device(options);
  if (!svg.empty()) WritePlanSvg(svg, options.file, ClassesOf(device.plan()));
  if (json) {
    PrintJson(options.file, device.plan(), device.RatePlans());
  } else {
    PrintTable(options, device.plan(), device.RatePlans());
  }
  device.CheckMemory();
}

}  // namespace acorn::program
