// acorn verify: every checksum of a file, read piece by piece, so that a file needs no more memory than its graph and a piece.
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "acorn_schema/checksum_stream.h"
#include "commands.h"
#include "error.h"
#include "file_pieces.h"
#include "json.h"
#include "model/reader.h"
#include "statistics.h"
#include "trust.h"

namespace acorn::program {
namespace {

static_assert(FilePieces::kPieceBytes % 64 == 0);  // what the checksums ask of a piece

/// A part of the file that has a checksum, or experts' records that have some.
struct Section {
  std::string name;  // as faults call it
  uint64_t index;
  std::string kind;
  uint64_t offset, bytes;
  uint64_t records;  // of a segment of experts
  bool good;
};

// Goes through a file and keeps the first thing that is wrong with it.
class Verifier {
 public:
  explicit Verifier(FilePieces *file) : file_(*file) {}

  void Run() {
    if (!CheckStart()) return;
    for (uint32_t i = 0; i < reader_.segment_count(); ++i) CheckSegment(i);
    ShowProgress(file_.bytes());
  }

  const std::vector<Section> &sections() const { return sections_; }
  const Fault &fault() const { return fault_; }
  uint64_t file_bytes() const { return file_.bytes(); }

 private:
  bool Note(Fault fault) {
    if (fault_.status == Status::kOk) fault_ = fault;
    return fault.status == Status::kOk;
  }

  // Header and graph. False: what they say of the rest cannot be believed.
  bool CheckStart() {
    start_.resize(std::min<uint64_t>(kHeaderBytes, file_.bytes()));
    file_.Read(0, start_.data(), start_.size());
    Header header = {};
    Fault fault;
    fault.status = ReadHeader({start_.data(), start_.size()}, &header, &fault);
    if (fault.status == Status::kOk && header.file_bytes < file_.bytes()) fault = {Status::kInvalid, "header", 0, kHeaderFileBytes};
    // The parts that a shorter file still has may be good.
    const bool truncated = fault.status == Status::kOk && header.file_bytes > file_.bytes();
    if (truncated) fault = {Status::kTruncated, "header", 0, file_.bytes()};
    sections_.push_back({"header", 0, "", 0, kHeaderBytes, 0, Note(fault)});
    if (!sections_.back().good && !truncated) return false;
    if (header.graph_bytes > file_.bytes() - kHeaderBytes) return false;

    start_.resize(kHeaderBytes + header.graph_bytes);
    file_.Read(kHeaderBytes, start_.data() + kHeaderBytes, header.graph_bytes);
    fault = {};
    fault.status = reader_.OpenGraph({start_.data(), start_.size()});
    if (fault.status != Status::kOk) fault = reader_.fault();
    sections_.push_back({"graph", 0, "", kHeaderBytes, header.graph_bytes, 0, Note(fault)});
    return sections_.back().good;
  }

  void CheckSegment(uint32_t index) {
    const SegmentPlace place = reader_.SegmentAt(index);
    Section section = {"segment", index, place.kind, place.offset, place.bytes, 0, true};
    ShowProgress(place.offset);
    if (place.has_records) {
      for (uint32_t set = 0; set < reader_.expert_set_count(); ++set) {
        if (reader_.SegmentOf(set) == index) CheckExperts(set, &section);
      }
    } else if (!IsThere(place.offset, place.bytes)) {
      section.good = Note({Status::kTruncated, "segment", index, place.offset});
    } else {
      ChecksumStream sum;
      file_.ForPieces(place.offset, place.bytes, [&](const uint8_t *data, size_t bytes) { sum.Add(data, bytes); });
      if (sum.End() != place.checksum) section.good = Note({Status::kDamaged, "segment", index, place.offset});
    }
    sections_.push_back(section);
  }

  void CheckExperts(uint32_t set_index, Section *section) {
    ExpertSet set;
    if (reader_.ReadExpertSet(set_index, &set) != Status::kOk) {
      section->good = Note(reader_.fault());
      return;
    }
    for (uint32_t i = 0; i < set.count * set.slices; ++i) {
      ExpertRecord record;
      if (reader_.ReadExpertRecord(set_index, i, &record) != Status::kOk) {
        section->good = Note(reader_.fault());
        return;
      }
      ++section->records;
      ShowProgress(record.offset);
      const uint64_t bytes = expert::RecordBytes(record.shape);
      if (!IsThere(record.offset, bytes)) {
        section->good = Note({Status::kTruncated, "expert", i, record.offset});
      } else if (ChecksumOf(record.offset, bytes) != record.checksum) {
        section->good = Note({Status::kDamaged, "expert", i, record.offset});
      }
    }
  }

  uint64_t ChecksumOf(uint64_t offset, uint64_t record_bytes) {
    uint64_t stripes[kRecordStripes];
    for (size_t i = 0; i < kRecordStripes; ++i) {
      const Stripe stripe = StripeOf(record_bytes, i);
      WideChecksumStream sum;
      file_.ForPieces(offset + stripe.begin, stripe.end - stripe.begin, [&](const uint8_t *data, size_t bytes) { sum.Add(data, bytes); });
      stripes[i] = sum.End();
    }
    return ChecksumOfStripes(stripes);
  }

  bool IsThere(uint64_t offset, uint64_t bytes) const { return offset <= file_.bytes() && bytes <= file_.bytes() - offset; }

  void ShowProgress(uint64_t done) {
    const uint64_t percent = file_.bytes() == 0 ? 100 : std::min<uint64_t>(done / (file_.bytes() / 100 + 1), 100);
    if (percent == shown_ || isatty(STDERR_FILENO) == 0) return;
    shown_ = percent;
    std::fprintf(stderr, "\r%3llu %% of %s", static_cast<unsigned long long>(percent), HumanBytes(file_.bytes()).c_str());
    if (done == file_.bytes()) std::fputs("\r                        \r", stderr);
  }

  FilePieces &file_;
  std::vector<uint8_t> start_;  // header and graph
  ModelReader reader_;
  std::vector<Section> sections_;
  Fault fault_;
  uint64_t shown_ = UINT64_MAX;
};

void PrintTable(const Verifier &verifier) {
  for (const Section &section : verifier.sections()) {
    const std::string name = section.name == "segment" ? "segment " + std::to_string(section.index) : section.name;
    std::printf("%-12s %-10s offset %12llu  %11s  ", name.c_str(), section.kind.c_str(), static_cast<unsigned long long>(section.offset),
                HumanBytes(section.bytes).c_str());
    if (section.records != 0) std::printf("%llu records  ", static_cast<unsigned long long>(section.records));
    std::printf("%s\n", section.good ? "ok" : "bad");
  }
}

void PrintJson(const Verifier &verifier, const std::string &trust) {
  JsonWriter json;
  const Fault &fault = verifier.fault();
  json.Raw("ok", fault.status == Status::kOk ? "true" : "false");
  json.Number("file_bytes", verifier.file_bytes());
  if (!trust.empty()) json.Raw("signed", "true");
  std::string rows;
  for (const Section &section : verifier.sections()) {
    JsonWriter row;
    row.Text("section", section.name);
    row.Number("index", section.index);
    if (!section.kind.empty()) row.Text("kind", section.kind);
    row.Number("offset", section.offset);
    row.Number("bytes", section.bytes);
    if (section.records != 0) row.Number("records", section.records);
    row.Raw("ok", section.good ? "true" : "false");
    rows += (rows.empty() ? "" : ", ") + row.Finish();
  }
  json.Raw("sections", "[" + rows + "]");
  if (fault.status != Status::kOk) {
    JsonWriter first;
    first.Text("error", acorn_status_text(static_cast<acorn_status>(fault.status)));
    first.Text("section", fault.section);
    first.Number("index", fault.index);
    first.Number("offset", fault.offset);
    json.Raw("fault", first.Finish());
  }
  std::printf("%s\n", json.Finish().c_str());
}

}  // namespace

void Verify(int argc, char **argv) {
  std::string path, trust;
  bool json = false;
  Arguments arguments("verify FILE [OPTIONS]", "Checks every checksum of a model file, without opening the model.");
  arguments.Positional("FILE", &path);
  arguments.Flag("--json", &json, "as one line of JSON");
  AddTrustOption(&arguments, &trust);
  if (!arguments.Parse(argc, argv)) return;
  FilePieces file(path);
  if (!trust.empty()) CheckSignature(path, trust, [&](const TakePiece &take) { file.ForPieces(0, file.bytes(), take); });
  Verifier verifier(&file);
  verifier.Run();
  if (json) {
    PrintJson(verifier, trust);
  } else {
    PrintTable(verifier);
  }
  const Fault &fault = verifier.fault();
  if (fault.status == Status::kOk) return;
  acorn_fault first = {};
  first.struct_size = sizeof first;
  first.status = static_cast<acorn_status>(fault.status);
  first.section = fault.section;
  first.index = fault.index;
  first.offset = fault.offset;
  FailModel(path.c_str(), first);
}

}  // namespace acorn::program
