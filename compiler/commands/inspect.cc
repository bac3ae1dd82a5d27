// acornc inspect: what a model file holds.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "acorn_schema/acorn_generated.h"
#include "acorn_schema/file.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "commands/commands.h"
#include "model/expert_record.h"
#include "model/reader.h"
#include "quantize/grid.h"

namespace acorn::compiler {
namespace {

using Json = nlohmann::ordered_json;

[[noreturn]] void Bad(const MappedFile &file, const std::string &section, uint64_t offset, const std::string &what) {
  throw Error(ExitCode::kBadModel, file.path() + ": " + section + ", offset " + std::to_string(offset) + ": " + what);
}

/// FlatBuffers' verifier looks at the alignment of a vector's length alone: one of wider elements may lie askew.
template <typename T>
bool IsAligned(const void *elements) {
  return reinterpret_cast<uintptr_t>(elements) % alignof(T) == 0;
}

/// Checks header, graph and segments, and returns the graph.
const schema::Model *OpenGraph(const MappedFile &file) {
  const uint8_t *p = file.data();
  if (file.size() < kHeaderBytes || std::memcmp(p, kFileMagic, 8) != 0)
    Bad(file, "header", kHeaderMagic, "this is no Acorn file");
  if (LoadLittle32(p + kHeaderVersion) != kFileVersion) {
    Bad(file, "header", kHeaderVersion, "format version " + std::to_string(LoadLittle32(p + kHeaderVersion)) + " is not known");
  }
  if (LoadLittle64(p + kHeaderChecksum) != Checksum(p, kHeaderChecksum)) Bad(file, "header", kHeaderChecksum, "damaged");
  if (LoadLittle64(p + kHeaderFileBytes) != file.size())
    Bad(file, "header", kHeaderFileBytes, "the file is truncated or too long");
  const uint64_t graph_bytes = LoadLittle64(p + kHeaderGraphBytes);
  if (graph_bytes > file.size() - kHeaderBytes || graph_bytes >= FLATBUFFERS_MAX_BUFFER_SIZE) {
    Bad(file, "header", kHeaderGraphBytes, "the graph does not fit the file");
  }
  flatbuffers::Verifier verifier(p + kHeaderBytes, graph_bytes);
  if (LoadLittle64(p + kHeaderGraphChecksum) != Checksum(p + kHeaderBytes, graph_bytes) ||
      !schema::VerifyModelBuffer(verifier)) {
    Bad(file, "graph", kHeaderBytes, "damaged");
  }
  const schema::Model *model = schema::GetModel(p + kHeaderBytes);
  if (model->segments() == nullptr || model->weights() == nullptr || model->body() == nullptr || model->head() == nullptr ||
      model->values() == nullptr) {
    Bad(file, "graph", kHeaderBytes, "incomplete");
  }
  if (!IsAligned<schema::Segment>(model->segments()->Data())) {
    Bad(file, "segments", kHeaderBytes, "the list of segments lies askew");
  }
  for (const schema::Segment *segment : *model->segments()) {
    if (segment->offset() > file.size() || segment->bytes() > file.size() - segment->offset()) {
      Bad(file, "segments", segment->offset(), "a segment does not fit the file");
    }
  }
  return model;
}

/// Experts have a checksum for each record in place of one for their segment; the device's own reader checks them.
bool RecordsAreSound(const MappedFile &file, const schema::Model &model, uint32_t segment) {
  ModelReader reader;
  if (reader.Open({file.data(), file.size()}, false) != Status::kOk) return false;
  for (uint32_t i = 0; model.expert_sets() != nullptr && i < model.expert_sets()->size(); ++i) {
    if (model.expert_sets()->Get(i)->segment() != segment) continue;
    ExpertSet set;
    if (reader.ReadExpertSet(i, &set) != Status::kOk) return false;
    for (uint32_t j = 0; j < set.count * set.slices; ++j) {
      ExpertRecord record;
      if (reader.ReadExpertRecord(i, j, &record) != Status::kOk ||
          CheckExpertRecord(set, record, file.data() + record.offset) != Status::kOk) return false;
    }
  }
  return true;
}

/// Texts of a file, without what could steer a terminal.
std::string Text(const flatbuffers::String *text) {
  std::string out = text == nullptr ? "" : text->str();
  std::replace_if(out.begin(), out.end(), [](unsigned char byte) { return byte < ' ' || byte == 0x7f; }, '?');
  for (size_t i = 0; i + 1 < out.size(); ++i) {  // U+0080 to U+009F, which some terminals obey too
    if (out[i] == '\xc2' && static_cast<unsigned char>(out[i + 1]) < 0xa0) out[i] = out[i + 1] = '?';
  }
  return out;
}

const char *LayoutName(uint8_t layout) {
  switch (static_cast<Layout>(layout)) {
    case Layout::kX16C8:
      return "x16c8";
    case Layout::kX8C8:
      return "x8c8";
    case Layout::kC4:
      return "c4";
    case Layout::kX16C4:
      return "x16c4";
    case Layout::kX16C1:
      return "x16c1";
    case Layout::kX8C2S4:
      return "x8c2s4";
  }
  return "?";
}

Json Steps(const flatbuffers::Vector<flatbuffers::Offset<schema::Step>> &steps) {
  Json counts = Json::object();
  for (const schema::Step *step : steps) {
    const char *name = schema::EnumNameOp(step->op_type());
    counts[name] = counts.value(name, 0) + 1;
  }
  return counts;
}

std::string Hex(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016" PRIx64, value);
  return text;
}

/// null without a run. The digests are those of the logits: of the steps that write them, the last ones of the head.
Json DescribeRun(const schema::ReferenceRun *run) {
  if (run == nullptr || run->prompt() == nullptr || run->generated() == nullptr || run->prefill() == nullptr ||
      run->decode() == nullptr || run->prefill()->size() == 0 || run->decode()->size() == 0 ||
      !IsAligned<uint64_t>(run->prefill()->Data()) || !IsAligned<uint64_t>(run->decode()->Data())) {
    return nullptr;
  }
  Json out;
  out["prompt"] = Json::array();
  for (const int32_t id : *run->prompt()) out["prompt"].push_back(id);
  out["generated"] = Json::array();
  for (const int32_t id : *run->generated()) out["generated"].push_back(id);
  out["sampled"] = run->sampled();
  out["temperature"] = run->temperature_q16() / 65536.0;
  out["seed"] = run->seed();
  out["steps"] = run->prefill()->size();
  out["prefill_digest"] = Hex(run->prefill()->Get(run->prefill()->size() - 1));
  out["decode_digest"] = Hex(run->decode()->Get(run->decode()->size() - 1));
  return out;
}

Json Describe(const MappedFile &file, const schema::Model &model) {
  Json out;
  out["name"] = Text(model.name());
  out["family"] = Text(model.family());
  out["file_bytes"] = file.size();
  out["format_version"] = kFileVersion;
  out["vocab_size"] = model.vocab_size();
  out["max_context"] = model.max_context();
  out["rates"] = {0};
  for (uint32_t i = 0; model.profiles() != nullptr && i < model.profiles()->size(); ++i) {
    out["rates"].push_back(model.profiles()->Get(i)->rate());
  }
  out["prefix_tokens"] = Json::array();
  if (model.prefix_tokens() != nullptr) {
    for (const int32_t token : *model.prefix_tokens()) out["prefix_tokens"].push_back(token);
  }
  out["layers"] = std::count_if(model.body()->begin(), model.body()->end(), [](const schema::Step *step) {
    return step->op_type() == schema::Op::Append || step->op_type() == schema::Op::Scan;
  });
  if (model.caches() != nullptr && model.caches()->size() != 0) out["kv_bits"] = model.caches()->Get(0)->bits();
  out["windows"] = Json::array();  // of the caches; 0: all tokens
  for (uint32_t i = 0; model.caches() != nullptr && i < model.caches()->size(); ++i) {
    out["windows"].push_back(model.caches()->Get(i)->window());
  }
  out["tokenizer"] = model.tokenizer_segment() != 65535;
  out["body"] = Steps(*model.body());
  out["head"] = Steps(*model.head());
  out["segments"] = Json::array();
  for (const schema::Segment *segment : *model.segments()) {
    const bool sound = segment->kind() == schema::SegmentKind::Experts
                           ? RecordsAreSound(file, model, static_cast<uint32_t>(out["segments"].size()))
                           : Checksum(file.data() + segment->offset(), segment->bytes()) == segment->checksum();
    out["segments"].push_back({{"kind", schema::EnumNameSegmentKind(segment->kind())},
                               {"offset", segment->offset()},
                               {"bytes", segment->bytes()},
                               {"checksum", sound ? "ok" : "wrong"}});
  }
  out["weights"] = Json::array();
  for (const schema::Weight *weight : *model.weights()) {
    out["weights"].push_back({{"format", FormatName(static_cast<WeightFormat>(weight->format()))},
                              {"layout", LayoutName(weight->layout())},
                              {"n", weight->n()},
                              {"k", weight->k()},
                              {"k_panel", weight->k_panel()},
                              {"bytes", weight->data() == nullptr ? 0 : weight->data()->bytes()},
                              {"segment", weight->data() == nullptr ? 0 : weight->data()->segment()},
                              {"acc_bound", weight->acc_bound()}});
  }
  out["reference_run"] = DescribeRun(model.reference_run());
  out["provenance"] = Json::object();
  if (model.provenance() != nullptr) {
    for (const schema::Provenance *entry : *model.provenance()) out["provenance"][Text(entry->key())] = Text(entry->value());
  }
  return out;
}

void PrintSteps(const char *name, const Json &counts) {
  std::printf("%-12s", name);
  for (const auto &[op, count] : counts.items()) std::printf(" %s x%d", op.c_str(), count.get<int>());
  std::printf("\n");
}

void Print(const Json &d) {
  std::printf("%s (%s), %.1f MB, vocabulary %u, context %u, %u layers, %s\n", d["name"].get<std::string>().c_str(),
              d["family"].get<std::string>().c_str(), d["file_bytes"].get<double>() / 1e6, d["vocab_size"].get<unsigned>(),
              d["max_context"].get<unsigned>(), d["layers"].get<unsigned>(),
              d["tokenizer"].get<bool>() ? "with tokenizer" : "no tokenizer");
  std::printf("%-12s %s\n", "prefix", d["prefix_tokens"].dump().c_str());
  uint32_t widest = 0;
  size_t windowed = 0;
  for (const Json &window : d["windows"]) {
    widest = std::max(widest, window.get<uint32_t>());
    windowed += window.get<uint32_t>() != 0;
  }
  if (windowed != 0) std::printf("%-12s %u tokens in %zu of %zu caches\n", "window", widest, windowed, d["windows"].size());
  PrintSteps("body", d["body"]);
  PrintSteps("head", d["head"]);
  const Json &run = d["reference_run"];
  if (d["rates"].size() > 1) std::printf("%-12s %s\n", "rates", d["rates"].dump().c_str());
  if (run.is_null()) {
    std::printf("%-12s none (acornc record adds one)\n", "selftest");
  } else {
    std::printf("%-12s prompt of %zu tokens, digest %s; %zu generated, %u of them drawn, digest %s\n", "selftest",
                run["prompt"].size(), run["prefill_digest"].get<std::string>().c_str(), run["generated"].size(),
                run["sampled"].get<unsigned>(), run["decode_digest"].get<std::string>().c_str());
  }
  for (const auto &[key, value] : d["provenance"].items())
    std::printf("%-12s %s\n", key.c_str(), value.get<std::string>().c_str());
  std::printf("\nsegment kind            offset        bytes checksum\n");
  size_t index = 0;
  for (const Json &s : d["segments"]) {
    std::printf("%7zu %-10s %12llu %12llu %s\n", index++, s["kind"].get<std::string>().c_str(),
                static_cast<unsigned long long>(s["offset"].get<uint64_t>()),
                static_cast<unsigned long long>(s["bytes"].get<uint64_t>()), s["checksum"].get<std::string>().c_str());
  }
  // Weights of the same shape and format are one line.
  std::printf("\nweights format layout        n        k        bytes\n");
  std::map<std::string, std::pair<int, uint64_t>> lines;
  std::vector<std::string> order;
  for (const Json &w : d["weights"]) {
    char line[80];
    std::snprintf(line, sizeof line, "%-6s %-6s %8u %8u", w["format"].get<std::string>().c_str(),
                  w["layout"].get<std::string>().c_str(), w["n"].get<unsigned>(), w["k"].get<unsigned>());
    if (lines.count(line) == 0) order.push_back(line);
    lines[line].first += 1;
    lines[line].second += w["bytes"].get<uint64_t>();
  }
  for (const std::string &line : order) {
    std::printf("%7d %s %12llu\n", lines[line].first, line.c_str(), static_cast<unsigned long long>(lines[line].second));
  }
}

}  // namespace

void AddInspectCommand(CLI::App *app) {
  struct Options {
    std::string path;
    bool json = false;
  };
  CLI::App *command = app->add_subcommand("inspect", "Show what a model file holds");
  const auto options = std::make_shared<Options>();
  command->add_option("FILE", options->path, "model file")->required();
  command->add_flag("--json", options->json, "print one JSON object");
  command->callback([options] {
    const MappedFile file(options->path);
    const Json description = Describe(file, *OpenGraph(file));
    if (options->json) {
      // Texts that are not UTF-8 are the file's fault, and no reason to say nothing.
      std::printf("%s\n", description.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
    } else {
      Print(description);
    }
    for (const Json &segment : description["segments"]) {
      if (segment["checksum"] != "ok") {
        Bad(file, "segments", segment["offset"].get<uint64_t>(), "the checksum of a segment is wrong");
      }
    }
  });
}

}  // namespace acorn::compiler
