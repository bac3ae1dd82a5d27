// Status: the one way a function of the runtime says that it could not do what it was asked.
// For every layer of runtime/; the values are frozen and equal to acorn_status in acorn.h (checked in api/).
#pragma once

#include <cstdint>

namespace acorn {

/// Groups by high nibble: 0x1_ caller, 0x2_ model, 0x3_ resource, 0x4_ port, 0x5_ cancelled.
enum class [[nodiscard]] Status : uint32_t {
  kOk = 0x00,
  kArgument = 0x10,       // null, misaligned or out-of-range argument
  kState = 0x11,          // call not legal in this state of the object
  kToken = 0x12,          // token id outside the vocabulary
  kText = 0x13,           // text cannot be encoded (no tokenizer, invalid markup)
  kRate = 0x14,           // the file holds no profile of this rate
  kRefill = 0x15,         // a lower rate needs what a higher one left out
  kForeign = 0x20,        // not an Acorn file
  kVersion = 0x21,        // an Acorn file of another version
  kTruncated = 0x22,      // file shorter than it says
  kDamaged = 0x23,        // checksum mismatch
  kInvalid = 0x24,        // content breaks a rule of FORMAT.md
  kUnsupported = 0x25,    // legal content that this build or machine cannot run
  kOtherModel = 0x26,     // a snapshot of a session of another model file
  kMemory = 0x30,         // the block is smaller than the plan
  kContextFull = 0x31,    // no room for the tokens; state unchanged
  kBuffer = 0x32,         // an output buffer is too small; nothing written
  kPort = 0x40,           // a callback of the port failed
  kStorage = 0x41,        // a read of the model file failed or came short
  kStalled = 0x42,        // a read of the model file did not come in time
  kCancelled = 0x50,      // stopped on request
  kDeadline = 0x51,       // stopped by the time
};

}  // namespace acorn

/// Returns from the calling function unless `expr` is Status::kOk.
#define ACORN_TRY(expr)                                              \
  do {                                                               \
    const ::acorn::Status acorn_try_status = (expr);                 \
    if (acorn_try_status != ::acorn::Status::kOk) return acorn_try_status; \
  } while (0)
