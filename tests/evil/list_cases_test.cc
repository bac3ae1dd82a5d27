// Segments, the model's own numbers, and the lists that steps name by index.
#include "tests/evil/evil_file.h"

namespace acorn::test {
namespace {

ModelSpec Spec() {
  ModelSpec spec;
  spec.name = "dense";
  spec.prefix_rows = 1;
  return spec;
}

// Entry `index` of the file's segments.
schema::Segment SegmentOf(const Bytes &file, uint32_t index) {
  return *schema::GetModel(file.data() + kHeaderBytes)->segments()->Get(index);
}
void PutSegment(Bytes *file, uint32_t index, const schema::Segment &segment) {
  const schema::Segment *entry = schema::GetModel(file->data() + kHeaderBytes)->segments()->Get(index);
  std::memcpy(const_cast<schema::Segment *>(entry), &segment, sizeof segment);
}

TEST(EvilSegments, EveryRule) {
  const Bytes file = BytesOf(BuildModel(Spec()));
  const schema::Segment first = SegmentOf(file, 0), second = SegmentOf(file, 1);
  const uint64_t end = kHeaderBytes + LoadLittle64(file.data() + kHeaderGraphBytes);
  ASSERT_EQ(first.kind(), schema::SegmentKind::Constants);
  ASSERT_EQ(second.kind(), schema::SegmentKind::Weights);
  ExpectOpens("unharmed", AlignedBytes(file));
  struct Row {
    const char *name;
    uint32_t index;
    schema::Segment segment;
    acorn_status status;
  };
  const auto of_kind = [](const schema::Segment &s, int kind) {
    return schema::Segment(static_cast<schema::SegmentKind>(kind), s.offset(), s.bytes(), s.checksum());
  };
  const auto at = [](const schema::Segment &s, uint64_t offset) { return schema::Segment(s.kind(), offset, s.bytes(), s.checksum()); };
  const auto of = [](const schema::Segment &s, uint64_t bytes) { return schema::Segment(s.kind(), s.offset(), bytes, s.checksum()); };
  const uint64_t overlap = second.offset() + 1 - first.offset();
  const schema::Segment into_the_next(first.kind(), first.offset(), overlap, Checksum(file.data() + first.offset(), overlap));
  const std::vector<Row> rows = {
      {"of no kind", 1, of_kind(second, 0), ACORN_ERR_INVALID},
      {"of the kind after the last", 1, of_kind(second, 5), ACORN_ERR_INVALID},
      {"of kind 255", 0, of_kind(first, 255), ACORN_ERR_INVALID},
      {"of experts among the others", 1, of_kind(second, 4), ACORN_ERR_INVALID},
      {"in the header", 0, at(first, 0), ACORN_ERR_INVALID},
      {"in the graph", 0, at(first, (end - 1) / 64 * 64), ACORN_ERR_INVALID},
      {"askew by 1", 0, at(first, first.offset() + 1), ACORN_ERR_INVALID},
      {"askew by 64", 1, at(second, second.offset() + 64), ACORN_ERR_INVALID},
      {"askew by 4096", 1, at(second, second.offset() + 4096), ACORN_ERR_INVALID},
      // CVE-2020-15214: an order that is believed.
      {"where the one before it is", 1, at(second, first.offset()), ACORN_ERR_INVALID},
      {"behind the end", 1, at(second, (file.size() / kSegmentAlignment + 1) * kSegmentAlignment), ACORN_ERR_TRUNCATED},
      {"at 2^31", 1, at(second, uint64_t{1} << 31), ACORN_ERR_TRUNCATED},
      {"at 2^63", 1, at(second, uint64_t{1} << 63), ACORN_ERR_TRUNCATED},
      {"at 2^64 - 16384", 1, at(second, 0 - kSegmentAlignment), ACORN_ERR_TRUNCATED},
      {"a byte past the end", 1, of(second, file.size() - second.offset() + 1), ACORN_ERR_TRUNCATED},
      {"of 2^32 - 1 bytes", 0, of(first, UINT32_MAX), ACORN_ERR_TRUNCATED},
      {"of 2^63 - 1 bytes", 0, of(first, INT64_MAX), ACORN_ERR_TRUNCATED},
      // CVE-2025-53630: the sum of offset and size wraps around and is small.
      {"whose end wraps around", 0, of(first, 0 - first.offset()), ACORN_ERR_TRUNCATED},
      {"of 2^64 - 1 bytes", 0, of(first, UINT64_MAX), ACORN_ERR_TRUNCATED},
      {"a byte short", 0, of(first, first.bytes() - 1), ACORN_ERR_DAMAGED},
      {"of nothing, with another's checksum", 0, of(first, 0), ACORN_ERR_DAMAGED},
      {"with a wrong checksum", 0, schema::Segment(first.kind(), first.offset(), first.bytes(), first.checksum() ^ 1),
       ACORN_ERR_DAMAGED},
  };
  for (const Row &row : rows) {
    Bytes bad = file;
    PutSegment(&bad, row.index, row.segment);
    SealGraph(&bad);
    ExpectRefused(std::string("segment ") + row.name, bad, {row.status, "segment", row.index, row.segment.offset()});
  }
  Bytes bad = file;
  PutSegment(&bad, 0, into_the_next);
  SealGraph(&bad);
  ExpectRefused("a segment that reaches into the next", bad, {ACORN_ERR_INVALID, "segment", 1, second.offset()});
  bad = file;
  PutSegment(&bad, 0, second);
  PutSegment(&bad, 1, first);
  SealGraph(&bad);
  ExpectRefused("segments in another order than in the file", bad, {ACORN_ERR_INVALID, "segment", 1, first.offset()});
  bad = file;
  PutSegment(&bad, 1, first);
  SealGraph(&bad);
  ExpectRefused("one segment twice", bad, {ACORN_ERR_INVALID, "segment", 1, first.offset()});
  bad = file;
  bad[first.offset() + first.bytes() / 2] ^= 1;
  ExpectRefused("a bit of the constants", bad, {ACORN_ERR_DAMAGED, "segment", 0, first.offset()});
  bad = file;
  bad[second.offset() + second.bytes() - 1] ^= 0x80;
  acorn_options check = {};
  check.flags = ACORN_OPEN_CHECK_WEIGHTS;
  ExpectRefused("a bit of the weights, where they are checked", bad, {ACORN_ERR_DAMAGED, "segment", 1, second.offset()}, check);
}

TEST(EvilSegments, HowMany) {
  ExpectAllRefused(Spec(), {
      {"65,535 segments", "segment", [](auto &m) { m.segments.resize(65535, m.segments[0]); return Where(); }},
      {"constants that are called weights", "head",
       [](auto &m) {
         m.segments[0] = schema::Segment(schema::SegmentKind::Weights, m.segments[0].offset(), m.segments[0].bytes(), 0);
         return Where(m.head.size() - 1, m.head.back()->op.AsLinear()->bias->offset());
       }},
  });
}

TEST(EvilModel, Numbers) {
  using M = schema::ModelT;
  const auto prefix = [](int32_t token) {
    return [token](M &m) {
      m.prefix_tokens[0] = token;
      return Where();
    };
  };
  const auto factor = [](int32_t multiplier, int shift) {
    return [=](M &m) {
      m.logit_factor = std::make_unique<schema::Factor>(multiplier, static_cast<uint8_t>(shift));
      return Where();
    };
  };
  const auto context = [](uint32_t tokens) {
    return [tokens](M &m) {
      m.max_context = tokens;
      return Where();
    };
  };
  const auto tokenizer = [](int segment) {
    return [segment](M &m) {
      m.tokenizer_segment = static_cast<uint16_t>(segment);
      return Where();
    };
  };
  ExpectAllRefused(Spec(), {
      {"no values", "values", [](M &m) { m.values.clear(); return Where(0); }},
      {"65 values", "values", [](M &m) { m.values.resize(65, m.values[0]); return Where(65); }},
      {"70,000 values", "values", [](M &m) { m.values.resize(70000, m.values[0]); return Where(70000); }},
      {"no body", "body", [](M &m) { m.body.clear(); return Where(); }},
      {"no head", "head", [](M &m) { m.head.clear(); return Where(); }},
      {"no weights", "head", [](M &m) { m.weights.clear(); return Where(m.head.size() - 1); }},
      {"no context", "model", context(0)},
      {"a context past the rows of a cache", "model", context(65536)},
      {"a context of 2^31", "model", context(1u << 31)},
      {"a context of 2^32 - 1", "model", context(UINT32_MAX)},
      {"65 prefix tokens", "model", [](M &m) { m.prefix_tokens.resize(65); return Where(); }},
      {"prefix token -1", "model", prefix(-1)},
      {"prefix token after the last", "model", prefix(67)},
      {"prefix token 2^31 - 1", "model", prefix(INT32_MAX)},
      {"prefix token -2^31", "model", prefix(INT32_MIN)},
      {"body's output in no value", "model", [](M &m) { m.body_out = 65535; return Where(); }},
      {"body's output after the last value", "model",
       [](M &m) {
         m.body_out = static_cast<uint16_t>(m.values.size());
         return Where();
       }},
      {"logits in no value", "model", [](M &m) { m.logits = 65535; return Where(); }},
      {"logits in a value of s16", "model", [](M &m) { m.logits = m.body_out; return Where(); }},
      {"no vocabulary", "model", [](M &m) { m.prefix_tokens.clear(); m.vocab_size = 0; return Where(); }},
      {"a vocabulary of one token more", "model", [](M &m) { ++m.vocab_size; return Where(); }},
      {"a vocabulary of 2^32 - 1", "model", [](M &m) { m.vocab_size = UINT32_MAX; return Where(); }},
      {"no logit factor", "model", [](M &m) { m.logit_factor = nullptr; return Where(); }},
      {"logit factor below 0", "model", factor(-1, 20)},
      {"logit factor of shift 0", "model", factor(1, 0)},
      {"logit factor of shift 63", "model", factor(1, 63)},
      {"logit factor of shift 255", "model", factor(1, 255)},
      {"tokenizer among the constants", "model", tokenizer(0)},
      {"tokenizer among the weights", "model", tokenizer(1)},
      {"tokenizer in segment 65,534", "model", tokenizer(65534)},
      {"a head of another body's output", "head",
       [](M &m) {
         m.body_out = m.body[1]->op.AsRmsNorm()->out->value();
         return Where(m.head.size());
       }},
  });
}

TEST(EvilValues, EveryRule) {
  std::vector<GraphCase> cases;
  const auto add = [&](const char *name, int dtype, uint32_t width) {
    for (const size_t index : {size_t{0}, size_t{3}}) {
      cases.push_back({std::string("value ") + name, "values", [=](schema::ModelT &m) {
                         m.values[index] = schema::Value(static_cast<schema::DType>(dtype), width);
                         return Where(index);
                       }});
    }
  };
  add("of no type", 0, 64);
  add("of the type after the last", 5, 64);
  add("of type 255", 255, 64);
  add("of no width", 3, 0);
  add("wider than any", 3, (1u << 20) + 1);
  add("of width 2^31", 3, 1u << 31);
  add("of width 2^32 - 1", 3, UINT32_MAX);
  ExpectAllRefused(Spec(), cases);
}

// A harm to an element that no step names shows at the element: what a plan lets pass opens.
template <typename T>
GraphCase ElementCase(const char *section, const char *name, std::vector<std::unique_ptr<T>> schema::ModelT::*list,
                      const std::function<uint64_t(T &)> &harm) {
  return {std::string(section) + ", " + name, section, [=](schema::ModelT &m) {
            (m.*list).push_back(std::make_unique<T>(*(m.*list).back()));
            return Where((m.*list).size() - 1, harm(*(m.*list).back()));
          }};
}

using RefPtr = std::unique_ptr<schema::Ref>;

// A Ref of an element in every place where it may not be. make: the case of a harm to that Ref
void AddRanges(std::vector<GraphCase> *cases,
               const std::function<GraphCase(const char *name, const std::function<uint64_t(RefPtr &)> &harm)> &make) {
  const auto add = [&](const char *name, const std::function<schema::Ref(const schema::Ref &)> &change) {
    cases->push_back(make(name, [change](RefPtr &ref) {
      *ref = change(*ref);
      return ref->offset();
    }));
  };
  add("in a segment of another kind", [](const auto &r) { return schema::Ref(r.segment() == 0 ? 1 : 0, r.offset(), r.bytes()); });
  add("askew", [](const auto &r) { return schema::Ref(r.segment(), r.offset() + 32, r.bytes()); });
  add("at 2^63", [](const auto &r) { return schema::Ref(r.segment(), uint64_t{1} << 63, r.bytes()); });
  add("whose end wraps around", [](const auto &r) { return schema::Ref(r.segment(), 0 - ((r.bytes() + 63) / 64 * 64), r.bytes()); });
  add("a byte short", [](const auto &r) { return schema::Ref(r.segment(), r.offset(), r.bytes() - 1); });
  add("of 2^64 - 1 bytes", [](const auto &r) { return schema::Ref(r.segment(), r.offset(), UINT64_MAX); });
  cases->push_back(make("absent", [](RefPtr &ref) { ref = nullptr; return 0; }));
  cases->push_back(make("in segment -1", [](RefPtr &ref) { *ref = schema::Ref(65535, 0, ref->bytes()); return 0; }));
}

TEST(EvilWeights, EveryRule) {
  using W = schema::WeightT;
  std::vector<GraphCase> cases;
  const auto add = [&](const char *name, const std::function<void(W &)> &harm, bool at_data = false) {
    cases.push_back(ElementCase<W>("weights", name, &schema::ModelT::weights, [=](W &w) {
      harm(w);
      return at_data ? w.data->offset() : 0;
    }));
  };
  add("of no format", [](W &w) { w.format = 0; });
  add("of the format after the last", [](W &w) { w.format = 7; });
  add("of format 255", [](W &w) { w.format = 255; });
  add("of no layout", [](W &w) { w.layout = 0; });
  add("of the layout after the last", [](W &w) { w.layout = 7; });
  add("of layout 255", [](W &w) { w.layout = 255; });
  add("of a grouped format in a layout without groups", [](W &w) { w.format = 3; });
  add("of a format without groups in C4", [](W &w) { w.layout = 3; });
  add("of a depth that groups do not divide", [](W &w) { w.format = 3, w.layout = 3, w.k = w.k_panel = 48; });
  add("of panels where there are groups", [](W &w) { w.format = 3, w.layout = 3, w.k_panel = 32; });
  // CVE-2023-27579, CVE-2022-23557: no channels, and a division by them.
  add("of no channels", [](W &w) { w.n = 0; });
  add("of no depth", [](W &w) { w.k = w.k_panel = 0; });
  add("of no panel", [](W &w) { w.k_panel = 0; });
  add("of more channels than may be", [](W &w) { w.n = (1u << 20) + 1; });
  add("of 2^31 channels", [](W &w) { w.n = 1u << 31; });
  add("of 2^32 - 1 channels", [](W &w) { w.n = UINT32_MAX; });
  add("deeper than may be", [](W &w) { w.k = w.k_panel = (1u << 20) + 1; });
  add("of depth 2^32 - 1", [](W &w) { w.k = w.k_panel = UINT32_MAX; });
  add("of a panel of 24", [](W &w) { w.k_panel = 24; });
  add("of a panel deeper than it is", [](W &w) { w.k_panel = w.k + 16; });
  add("of a panel of 2^32 - 1", [](W &w) { w.k_panel = UINT32_MAX; });
  // CVE-2026-7482, CVE-2026-33298, CVE-2022-23559, CVE-2025-54952: more elements than bytes, and products that pass any type.
  add("of more channels than bytes", [](W &w) { w.n += 16; }, true);
  add("deeper than its bytes", [](W &w) { w.k_panel = w.k *= 2; }, true);
  add("of 2^20 by 2^20", [](W &w) { w.n = w.k = w.k_panel = 1u << 20; }, true);
  add("of fewer bits than bytes", [](W &w) { w.format = 2; }, true);
  AddRanges(&cases, [](const char *name, const auto &harm) {
    return ElementCase<W>("weights", name, &schema::ModelT::weights, [=](W &w) { return harm(w.data); });
  });
  ExpectAllRefused(Spec(), cases);
}

TEST(EvilRopes, EveryRule) {
  using R = schema::RopeT;
  std::vector<GraphCase> cases;
  for (const uint32_t dims : {0u, 1u, 15u, 514u, 1u << 31, UINT32_MAX}) {
    cases.push_back(ElementCase<R>("ropes", std::to_string(dims).c_str(), &schema::ModelT::ropes, [=](R &r) {
      r.rotary_dims = dims;
      return 0;
    }));
  }
  cases.push_back(ElementCase<R>("ropes", "of more frequencies than bytes", &schema::ModelT::ropes, [](R &r) {
    r.rotary_dims += 2;
    return r.frequencies->offset();
  }));
  AddRanges(&cases, [](const char *name, const auto &harm) {
    return ElementCase<R>("ropes", name, &schema::ModelT::ropes, [=](R &r) { return harm(r.frequencies); });
  });
  ExpectAllRefused(Spec(), cases);
}

TEST(EvilCaches, EveryRule) {
  using C = schema::CacheT;
  std::vector<GraphCase> cases;
  const auto add = [&](const char *name, const std::function<uint64_t(C &)> &harm) {
    cases.push_back(ElementCase<C>("caches", name, &schema::ModelT::caches, harm));
  };
  for (const int bits : {0, 1, 2, 5, 16, 255}) {
    add(("of " + std::to_string(bits) + " bits").c_str(), [=](C &c) { c.bits = static_cast<uint8_t>(bits); return 0; });
  }
  for (const uint32_t heads : {0u, 2049u, 1u << 31, UINT32_MAX}) {
    add(("of " + std::to_string(heads) + " heads").c_str(), [=](C &c) { c.kv_heads = heads; return 0; });
  }
  for (const uint32_t dim : {0u, 15u, 514u, 1u << 31, UINT32_MAX}) {
    add(("of heads of " + std::to_string(dim)).c_str(), [=](C &c) { c.head_dim = dim; return 0; });
  }
  for (const uint32_t window : {65536u, 1u << 31, UINT32_MAX}) {  // with the prefix more than the sums of attention have room for
    add(("of a window of " + std::to_string(window)).c_str(), [=](C &c) { c.window = window; return 0; });
  }
  add("of more heads than its prefix", [](C &c) { c.kv_heads *= 2; return c.prefix_k->offset(); });
  AddRanges(&cases, [](const char *name, const auto &harm) {
    return ElementCase<C>("caches", (std::string("keys ") + name).c_str(), &schema::ModelT::caches,
                          [=](C &c) { return harm(c.prefix_k); });
  });
  AddRanges(&cases, [](const char *name, const auto &harm) {
    return ElementCase<C>("caches", (std::string("values ") + name).c_str(), &schema::ModelT::caches,
                          [=](C &c) { return harm(c.prefix_v); });
  });
  ExpectAllRefused(Spec(), cases);
}

// -128 is no activation: kernels that add products in 16 bits rely on it.
TEST(EvilCaches, APrefixIsSymmetric) {
  const AlignedBytes file = BuildModel(Spec());
  const schema::ModelT model = *GraphOf(file);
  for (const auto &[name, ref] : {std::pair("a key", *model.caches[1]->prefix_k), std::pair("a value", *model.caches[1]->prefix_v)}) {
    AlignedBytes bad = file;
    bad.data()[model.segments[ref.segment()].offset() + ref.offset() + ref.bytes() - 1] = 0x80;
    Reseal(&bad);
    ExpectRefused(std::string(name) + " of -128", BytesOf(bad), {ACORN_ERR_INVALID, "caches", 1});
  }
}

}  // namespace
}  // namespace acorn::test
