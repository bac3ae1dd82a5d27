#include "snapshot_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "error.h"

namespace acorn::program {
namespace {

/// Where a file is to stand in the end.
struct Target {
  std::string path, folder;
  bool exists;
  mode_t mode;  // of the one that is there
};

[[noreturn]] void FailToSave(const std::string &path, int error) {
  Fail(ExitCode::kIo, "cannot save to %s: %s", path.c_str(), std::strerror(error));
}

Target FindTarget(const std::string &path) {
  Target target = {path, ".", false, 0};
  struct stat found = {};
  if (stat(path.c_str(), &found) == 0) {
    if (!S_ISREG(found.st_mode)) Fail(ExitCode::kIo, "cannot save to %s: it is not a regular file", path.c_str());
    char *real = realpath(path.c_str(), nullptr);
    if (real == nullptr) FailToSave(path, errno);
    target = {real, ".", true, found.st_mode & 0777};
    std::free(real);
  } else if (errno != ENOENT) {
    FailToSave(path, errno);
  }
  const size_t slash = target.path.rfind('/');
  if (slash != std::string::npos) target.folder = target.path.substr(0, slash == 0 ? 1 : slash);
  return target;
}

/// Returns: 0 or an errno value
int Sync(int file) {
  while (fsync(file) != 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

/// Returns: 0 or an errno value
int WriteAll(int file, const std::vector<uint8_t> &bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t count = write(file, bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno != EINTR) return errno;
    if (count > 0) done += static_cast<size_t>(count);
  }
  return Sync(file);
}

/// The new name is on the disk too. File systems that cannot say so of a folder (EINVAL) do it by themselves or not at all.
int SyncFolder(const std::string &folder) {
  const int file = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) return errno;
  const int error = Sync(file);
  close(file);
  return error == EINVAL ? 0 : error;
}

}  // namespace

void CheckCanSave(const std::string &path) {
  const Target target = FindTarget(path);
  if (access(target.folder.c_str(), W_OK | X_OK) != 0) FailToSave(path, errno);
}

void SaveSession(const Device &device, const std::string &path) {
  const Target target = FindTarget(path);
  std::vector<uint8_t> bytes(acorn_session_snapshot_bytes(device.session()));
  Check(acorn_session_save(device.session(), bytes.data(), bytes.size()), "saving");
  std::string made = target.path + ".XXXXXX";
  const int file = mkostemp(made.data(), O_CLOEXEC);
  if (file < 0) FailToSave(path, errno);
  int error = target.exists && fchmod(file, target.mode) != 0 ? errno : WriteAll(file, bytes);
  if (close(file) != 0 && errno != EINTR && error == 0) error = errno;  // after a signal it is closed all the same
  if (error == 0 && std::rename(made.c_str(), target.path.c_str()) != 0) error = errno;
  if (error != 0) {
    unlink(made.c_str());
    FailToSave(path, error);
  }
  if ((error = SyncFolder(target.folder)) != 0) FailToSave(path, error);
}

void LoadSession(Device *device, const std::string &path) {
  const char *name = path.c_str();
  // A session's snapshot is shorter than the session: what is longer is refused by its first bytes, and not read.
  acorn_posix_file file = {};
  const int error = acorn_posix_open_part(&file, name, ACORN_POSIX_COPY, device->plan().session_bytes + 1);
  if (error == ENOMEM) Fail(ExitCode::kMemory, "%s: no memory for the file", name);
  if (error != 0) Fail(ExitCode::kIo, "%s: %s", name, std::strerror(error));
  const acorn_status status =
      file.bytes == 0 ? static_cast<acorn_status>(ACORN_ERR_FOREIGN) : acorn_session_load(device->session(), file.data, file.bytes);
  acorn_posix_close_file(&file);
  if (status == ACORN_ERR_FOREIGN) Fail(ExitCode::kModel, "%s: not a saved conversation", name);
  if (status == ACORN_ERR_OTHER_MODEL) {
    Fail(ExitCode::kModel, "%s: a conversation with another model file than %s", name, device->path().c_str());
  }
  if (status == ACORN_ERR_CONTEXT_FULL) {
    Fail(ExitCode::kUsage, "%s: the conversation is longer than the context of %u tokens (--context)", name,
         device->plan().context_tokens);
  }
  Check(status, name);
  if (device->options().rate != kNoRate) device->SetRate(static_cast<uint32_t>(device->options().rate));
}

}  // namespace acorn::program
