// Conversations in files. A new one is written beside the old one and takes its place when all of it is on the disk: whatever goes
// wrong, the old one is still there and whole.
#pragma once

#include <string>

#include "device.h"

namespace acorn::program {

/// Fails where SaveSession could not write, before anything has been computed for it.  Throws Failure.
void CheckCanSave(const std::string &path);

/// Saves the device's conversation. A link is followed; what is no regular file is refused; a new file is for its owner's eyes.
/// Throws Failure.
void SaveSession(const Device &device, const std::string &path);

/// Takes a saved conversation in place of the device's, at its rate or that of --rate. The device's stays where this fails.
/// Throws Failure.
void LoadSession(Device *device, const std::string &path);

}  // namespace acorn::program
