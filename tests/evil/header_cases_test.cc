// The fixed beginning of a file, and files that end too early. What must come out is told here once more, from FORMAT.md.
#include <algorithm>
#include <set>

#include "tests/evil/evil_file.h"

namespace acorn::test {
namespace {

ModelSpec Sparse() {
  ModelSpec spec;
  spec.name = "sparse";
  spec.experts = 3;
  spec.expert_weights = {{WeightFormat::kW4G32, Layout::kC4}};
  return spec;
}

struct Facts {
  explicit Facts(const Bytes &file)
      : bytes(file.size()),
        graph_end(kHeaderBytes + LoadLittle64(file.data() + kHeaderGraphBytes)),
        experts(LoadLittle64(file.data() + kHeaderExperts)),
        model(GraphOf(AlignedBytes(file))),
        segments(model->segments) {}
  uint64_t bytes, graph_end, experts;
  std::unique_ptr<schema::ModelT> model;
  std::vector<schema::Segment> segments;

  // The first segment that does not end before `end`.
  Verdict Past(uint64_t end) const {
    for (size_t i = 0; i < segments.size(); ++i) {
      if (segments[i].offset() + segments[i].bytes() > end) return {ACORN_ERR_TRUNCATED, "segment", i, segments[i].offset()};
    }
    return {ACORN_OK, ""};
  }
};

Verdict InHeader(acorn_status status, uint64_t offset) { return {status, "header", 0, offset}; }

TEST(EvilHeader, EverySingleBit) {
  const Bytes file = BytesOf(BuildModel(ModelSpec()));
  ExpectOpens("unharmed", AlignedBytes(file));
  for (uint64_t bit = 0; bit < 8 * kHeaderBytes; ++bit) {
    Bytes bad = file;
    bad[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    const uint64_t at = bit / 8;
    ExpectRefused("bit " + std::to_string(bit), bad,
                  at < kHeaderVersion ? InHeader(ACORN_ERR_FOREIGN, kHeaderMagic)
                  : at < kHeaderSize  ? InHeader(ACORN_ERR_VERSION, kHeaderVersion)
                                      : InHeader(ACORN_ERR_DAMAGED, kHeaderChecksum));
  }
}

// With the header's checksum made right: what each field's own rule says.
TEST(EvilHeader, EverySingleBitUnderARightChecksum) {
  const Bytes file = BytesOf(BuildModel(ModelSpec()));
  const Facts facts(file);
  for (uint64_t bit = 0; bit < 8 * kHeaderChecksum; ++bit) {
    Bytes bad = file;
    bad[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    SealHeader(&bad);
    const uint64_t at = bit / 8;
    const auto field = [&](uint64_t offset) { return LoadLittle64(bad.data() + offset); };
    Verdict verdict = InHeader(ACORN_ERR_INVALID, kHeaderExperts);
    if (at < kHeaderVersion) {
      verdict = InHeader(ACORN_ERR_FOREIGN, kHeaderMagic);
    } else if (at < kHeaderSize) {
      verdict = InHeader(ACORN_ERR_VERSION, kHeaderVersion);
    } else if (at < kHeaderFileBytes) {
      verdict = InHeader(ACORN_ERR_INVALID, kHeaderSize);
    } else if (at < kHeaderGraphOffset) {
      const uint64_t said = field(kHeaderFileBytes);
      verdict = said < facts.graph_end ? InHeader(ACORN_ERR_INVALID, kHeaderGraphBytes)
                : said < facts.bytes   ? InHeader(ACORN_ERR_INVALID, kHeaderFileBytes)
                                       : InHeader(ACORN_ERR_TRUNCATED, facts.bytes);
    } else if (at < kHeaderGraphBytes) {
      verdict = InHeader(ACORN_ERR_INVALID, kHeaderGraphBytes);
    } else if (at < kHeaderGraphChecksum) {
      const bool fits = field(kHeaderGraphBytes) <= facts.bytes - kHeaderBytes;
      verdict = fits ? Verdict{ACORN_ERR_DAMAGED, "graph", 0, kHeaderBytes} : InHeader(ACORN_ERR_INVALID, kHeaderGraphBytes);
    } else if (at < kHeaderExperts) {
      verdict = {ACORN_ERR_DAMAGED, "graph", 0, kHeaderBytes};
    } else if (const uint64_t experts = field(kHeaderExperts);
               experts % kSegmentAlignment == 0 && experts < facts.bytes && experts >= facts.graph_end) {
      verdict = facts.Past(experts);  // segments that are no experts may not lie there
    }
    ExpectRefused("sealed bit " + std::to_string(bit), bad, verdict);
  }
}

TEST(EvilHeader, Fields) {
  const Bytes file = BytesOf(BuildModel(ModelSpec()));
  const Facts facts(file);
  struct Row {
    const char *name;
    HeaderField field;
    int bytes;
    uint64_t value;
    Verdict verdict;
  };
  const Verdict graph = InHeader(ACORN_ERR_INVALID, kHeaderGraphBytes), experts = InHeader(ACORN_ERR_INVALID, kHeaderExperts);
  const Verdict short_file = InHeader(ACORN_ERR_TRUNCATED, facts.bytes);
  const std::vector<Row> rows = {
      {"another program's magic", kHeaderMagic, 4, 0x46554747, InHeader(ACORN_ERR_FOREIGN, kHeaderMagic)},
      {"the last version", kHeaderVersion, 4, UINT32_MAX, InHeader(ACORN_ERR_VERSION, kHeaderVersion)},
      {"no header", kHeaderSize, 4, 0, InHeader(ACORN_ERR_INVALID, kHeaderSize)},
      {"giant header", kHeaderSize, 4, UINT32_MAX, InHeader(ACORN_ERR_INVALID, kHeaderSize)},
      {"a file of nothing", kHeaderFileBytes, 8, 0, graph},
      {"a file of 63 bytes", kHeaderFileBytes, 8, 63, graph},
      {"a file that ends in its graph", kHeaderFileBytes, 8, facts.graph_end - 1, graph},
      {"a file a byte shorter than it is", kHeaderFileBytes, 8, facts.bytes - 1, InHeader(ACORN_ERR_INVALID, kHeaderFileBytes)},
      {"a file a byte longer than it is", kHeaderFileBytes, 8, facts.bytes + 1, short_file},
      {"a file of 2^31", kHeaderFileBytes, 8, uint64_t{1} << 31, short_file},
      {"a file of 2^32 - 1", kHeaderFileBytes, 8, UINT32_MAX, short_file},
      {"a file of 2^63 - 1", kHeaderFileBytes, 8, INT64_MAX, short_file},
      {"a file of 2^64 - 1", kHeaderFileBytes, 8, UINT64_MAX, short_file},
      {"a graph in the header", kHeaderGraphOffset, 8, 0, graph},
      {"a graph further on", kHeaderGraphOffset, 8, 128, graph},
      {"a graph at 2^63", kHeaderGraphOffset, 8, uint64_t{1} << 63, graph},
      // CVE-2025-53630 and its bypass, CVE-2026-27940: a size whose sum with an offset wraps around.
      {"a graph whose end wraps around", kHeaderGraphBytes, 8, UINT64_MAX - kHeaderBytes + 1, graph},
      {"a graph of 2^64 - 1", kHeaderGraphBytes, 8, UINT64_MAX, graph},
      {"a graph of 2^31", kHeaderGraphBytes, 8, uint64_t{1} << 31, graph},
      {"a graph a byte too long for the file", kHeaderGraphBytes, 8, facts.bytes - kHeaderBytes + 1, graph},
      {"experts askew", kHeaderExperts, 8, 1, experts},
      {"experts behind the end", kHeaderExperts, 8, (facts.bytes / kSegmentAlignment + 1) * kSegmentAlignment, experts},
      {"experts at 2^63", kHeaderExperts, 8, uint64_t{1} << 63, experts},
      {"experts at 2^64 - 16384", kHeaderExperts, 8, UINT64_MAX - kSegmentAlignment + 1, experts},
      {"experts among the other segments", kHeaderExperts, 8, facts.segments[1].offset(), facts.Past(facts.segments[1].offset())},
  };
  for (const Row &row : rows) {
    Bytes bad = file;
    Put(&bad, row.field, row.value, row.bytes);
    SealHeader(&bad);
    ExpectRefused(row.name, bad, row.verdict);
  }
}

// Graphs of a length that a header may have, and no table fits into; each under a right checksum.
TEST(EvilHeader, ShortGraphs) {
  const Bytes file = BytesOf(BuildModel(ModelSpec()));
  for (const uint64_t bytes : {0, 1, 7, 8, 15, 16, 20, 64}) {
    Bytes bad = file;
    Put(&bad, kHeaderGraphBytes, bytes, 8);
    SealGraph(&bad);
    ExpectRefused("a graph of " + std::to_string(bytes), bad, {ACORN_ERR_INVALID, "graph", 0, kHeaderBytes});
  }
  Bytes bad = file;
  Put(&bad, kHeaderGraphBytes, file.size() - kHeaderBytes, 8);
  SealGraph(&bad);
  const Facts facts(file);
  ExpectRefused("a graph that is the file", bad, {ACORN_ERR_INVALID, "segment", 0, facts.segments[0].offset()});
}

std::set<uint64_t> Boundaries(const Bytes &file) {
  const Facts facts(file);
  std::set<uint64_t> around = {8, kHeaderBytes, facts.graph_end};
  for (const schema::Segment &segment : facts.segments) {
    around.insert(segment.offset());
    around.insert(segment.offset() + segment.bytes());
  }
  for (const auto &set : facts.model->expert_sets) {
    for (const schema::ExpertRecord &record : set->records) around.insert(facts.segments[set->segment].offset() + record.offset());
  }
  std::set<uint64_t> cuts = {0, 1, 7};
  for (const uint64_t at : around) {
    for (const uint64_t cut : {at - 1, at, at + 1}) {
      if (cut < file.size()) cuts.insert(cut);
    }
  }
  for (uint64_t cut = 0; cut < kHeaderBytes; ++cut) cuts.insert(cut);
  return cuts;
}

// At every boundary: of the header, the graph, each segment and each record.
TEST(EvilHeader, Cut) {
  for (const ModelSpec &spec : {ModelSpec(), Sparse()}) {
    const Bytes file = BytesOf(BuildModel(spec));
    const Facts facts(file);
    for (const uint64_t cut : Boundaries(file)) {
      const Verdict verdict = cut < 8                                    ? InHeader(ACORN_ERR_FOREIGN, kHeaderMagic)
                              : facts.experts != 0 && cut == facts.experts ? Verdict{ACORN_ERR_TRUNCATED, "experts", 0, cut}
                                                                           : InHeader(ACORN_ERR_TRUNCATED, cut);
      const Bytes bad(file.begin(), file.begin() + static_cast<int64_t>(cut));
      ExpectRefused(spec.name + " cut to " + std::to_string(cut), bad, verdict);
    }
  }
}

// The same, and a header that says so.
TEST(EvilHeader, CutAndSealed) {
  for (const ModelSpec &spec : {ModelSpec(), Sparse()}) {
    const Bytes file = BytesOf(BuildModel(spec));
    const Facts facts(file);
    for (const uint64_t cut : Boundaries(file)) {
      if (cut < kHeaderBytes) continue;
      Bytes bad(file.begin(), file.begin() + static_cast<int64_t>(cut));
      Put(&bad, kHeaderFileBytes, cut, 8);
      SealHeader(&bad);
      Verdict verdict = facts.Past(cut);
      if (cut < facts.graph_end) {
        verdict = InHeader(ACORN_ERR_INVALID, kHeaderGraphBytes);
      } else if (facts.experts != 0 && cut <= facts.experts) {
        verdict = InHeader(ACORN_ERR_INVALID, kHeaderExperts);
      }
      ExpectRefused(spec.name + " sealed at " + std::to_string(cut), bad, verdict);
    }
  }
}

TEST(EvilHeader, ABytePastTheEnd) {
  Bytes file = BytesOf(BuildModel(ModelSpec()));
  file.push_back(0);
  ExpectRefused("a byte more", file, InHeader(ACORN_ERR_INVALID, kHeaderFileBytes));
}

// A copy of the file into memory asks for what the header says and no more, and reads nothing before that is known to be there.
TEST(EvilHeader, AnImageIsReadOnlyWhereThereIsRoom) {
  struct File {
    Bytes bytes;
    int reads = 0;
  } file = {BytesOf(BuildModel(ModelSpec()))};
  Put(&file.bytes, kHeaderFileBytes, INT64_MAX, 8);
  SealHeader(&file.bytes);
  acorn_port port = {};
  port.struct_size = sizeof port;
  port.ctx = &file;
  port.read = [](void *ctx, void *to, uint64_t offset, size_t bytes) {
    auto *from = static_cast<File *>(ctx);
    ++from->reads;
    if (offset + bytes > from->bytes.size()) return 1;
    std::memcpy(to, from->bytes.data() + offset, bytes);
    return 0;
  };
  acorn_image image = {};
  uint64_t need = 0;
  AlignedBytes memory(Bytes(4096, 0xa5));
  EXPECT_EQ(acorn_image_read(&image, &need, &port, memory.data(), memory.size()), static_cast<acorn_status>(ACORN_ERR_MEMORY));
  EXPECT_EQ(need, uint64_t{INT64_MAX});
  EXPECT_EQ(file.reads, 1);
  EXPECT_EQ(BytesOf(memory), Bytes(4096, 0xa5));
}

}  // namespace
}  // namespace acorn::test
