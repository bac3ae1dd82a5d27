#include "train/archive.h"

#include "acorn_schema/file.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "base/temporary_file.h"

namespace acorn::compiler {
namespace {

// File: magic, then for each array u64 name bytes, u64 data bytes, name, data; at last 0 and the checksum of all before it.
constexpr char kMagic[8] = {'a', 'c', 'o', 'r', 'n', 'a', 'r', '1'};
constexpr uint64_t kLongestName = 256;

}  // namespace

const std::vector<uint8_t> &Archive::Find(const std::string &name, size_t element) const {
  const auto found = entries_.find(name);
  if (found == entries_.end() || found->second.size() % element != 0) Refuse(name);
  return found->second;
}

void Archive::Refuse(const std::string &name) const {
  throw Error(ExitCode::kIo, path_ + ": not what this version keeps (array " + name + "); remove it to start anew");
}

void Archive::Save(const std::string &path) const {
  TemporaryFile file(path);
  std::vector<uint64_t> sums;
  const auto write = [&](const void *data, size_t bytes) {
    file.Write(data, bytes);
    sums.push_back(Checksum(static_cast<const uint8_t *>(data), bytes));
  };
  write(kMagic, sizeof kMagic);
  for (const auto &[name, data] : entries_) {
    const uint64_t sizes[2] = {name.size(), data.size()};
    write(sizes, sizeof sizes);
    write(name.data(), name.size());
    write(data.data(), data.size());
  }
  const uint64_t end[2] = {0, Checksum(reinterpret_cast<const uint8_t *>(sums.data()), sums.size() * sizeof(uint64_t))};
  file.Write(end, sizeof end);
  file.Commit();
}

Archive Archive::Load(const std::string &path) {
  const MappedFile file(path);
  Archive archive;
  archive.path_ = path;
  std::vector<uint64_t> sums;
  size_t at = 0;
  const auto take = [&](uint64_t bytes) {
    if (bytes > file.size() - at) throw Error(ExitCode::kIo, path + ": ends early; remove it to start anew");
    const uint8_t *data = file.data() + at;
    at += static_cast<size_t>(bytes);
    return data;
  };
  const auto read = [&](uint64_t bytes) {
    const uint8_t *data = take(bytes);
    sums.push_back(Checksum(data, static_cast<size_t>(bytes)));
    return data;
  };
  if (std::memcmp(read(sizeof kMagic), kMagic, sizeof kMagic) != 0) {
    throw Error(ExitCode::kIo, path + ": not a checkpoint of this version; remove it to start anew");
  }
  for (;;) {
    uint64_t sizes[2];
    std::memcpy(sizes, take(sizeof sizes), sizeof sizes);
    if (sizes[0] == 0) {
      const uint64_t sum = Checksum(reinterpret_cast<const uint8_t *>(sums.data()), sums.size() * sizeof(uint64_t));
      if (sizes[1] != sum) throw Error(ExitCode::kIo, path + ": damaged; remove it to start anew");
      return archive;
    }
    sums.push_back(Checksum(reinterpret_cast<const uint8_t *>(sizes), sizeof sizes));
    if (sizes[0] > kLongestName) throw Error(ExitCode::kIo, path + ": damaged; remove it to start anew");
    const uint8_t *name = read(sizes[0]);
    const uint8_t *data = read(sizes[1]);
    archive.entries_[std::string(name, name + sizes[0])].assign(data, data + sizes[1]);
  }
}

}  // namespace acorn::compiler
